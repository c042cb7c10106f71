/* Calls for groups of few filters, whose columns aren't worth packing: what forward and gradients share. */
#ifndef DOT_DIRECT_H
#define DOT_DIRECT_H

#include "dot_phases.h"

struct direct {
    const struct dot_problem *p;
    struct phases s;
    int64_t *offsets; /* where each tap reads */
    int64_t share;    /* items of one task */
    int64_t together; /* groups of one item */
};

/* What is done at once: a box of one group of one image. Where channels lie side by side, of several groups, since a cache
 * line has pixels of all of them. */
struct item {
    int64_t group, groups, image, box;
    int64_t start[3];  /* the box's first block */
    int64_t blocks[3];
};

/* How many groups an item has. The results don't depend on it. */
int64_t dot_direct_together(const struct direct *d);
int64_t dot_direct_items(const struct direct *d);
int64_t dot_direct_share(const struct direct *d);
/* Items by their number. Those of one box follow one another, as these have one mask. */
struct item dot_direct_item(const struct direct *d, int64_t number);
/* Goes on to the next item. Returns whether its pixels must be padded: of another box, or of more groups than
 * the last one's. */
int dot_direct_next(const struct direct *d, struct item *item);
/* Where each tap reads in a group's pixels, from a block's place on. */
void dot_direct_offsets(const struct dot_problem *p, const struct phases *s, int64_t *offsets);
/* The pixels of a phase, from the block `start` on. */
struct grid dot_phase_grid(const struct dot_problem *p, const struct phases *s, const int64_t *start, int64_t phase);
/* Whether a tap lies outside the image. */
int dot_direct_outside(const struct dot_problem *p, const struct item *item);
/* The groups' pixels: [group][channel][phase][size]. pads: whether to pad them too, or what is there stays. */
void dot_direct_take(const struct direct *d, const struct item *item, int pads, char *out);
/* The mask of one group's: all bits for pixels in the image, none for others. */
void dot_direct_mask(const struct direct *d, const struct item *item, char *out);
/* A filter's weights, [k][plane]: where they are, or in `room`. */
const char *dot_direct_weights(const struct dot_problem *p, int64_t filter, char *room);

/* Whether a problem's sizes are for these calls. */
int dot_is_direct_forward(const struct dot_problem *p);
int dot_is_direct_grad_x(const struct dot_problem *p);
int dot_is_direct_grad_w(const struct dot_problem *p);

int64_t dot_direct_workspace(const struct dot_problem *p);
void dot_direct(const struct dot_problem *p, void *y, void *workspace);

int64_t dot_direct_grad_x_workspace(const struct dot_problem *p);
void dot_direct_grad_x(const struct dot_problem *p, const void *grad, void *dx, void *workspace);
int64_t dot_direct_grad_w_workspace(const struct dot_problem *p);
void dot_direct_grad_w(const struct dot_problem *p, const void *grad, void *dw, void *workspace);

#endif
