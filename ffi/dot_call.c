/* Every call by its number, for callers that keep a problem for operands that change. */
#include "dot_direct.h"

int dot_prefers_direct(const struct dot_problem *p, int call)
{
    switch (call) {
    case 0:
        return dot_is_direct_forward(p);
    case 1:
        return dot_is_direct_grad_x(p);
    case 2:
        return dot_is_direct_grad_w(p);
    case 3:
        return dot_is_direct_grad_x(p) && dot_is_direct_grad_w(p);
    default:
        return 0;
    }
}

void dot_call(const struct dot_problem *kept, int call, uintptr_t w, uintptr_t x, uintptr_t result, uintptr_t saved,
              uintptr_t dx, uintptr_t dw, uintptr_t parallel, uintptr_t scalars, uint32_t wanted, void *workspace)
{
    struct dot_problem p = *kept;
    struct dot_kernels kernels = *p.kernels;
    void *y = (void *)result, *to_x = (void *)dx, *to_w = (void *)dw;
    /* Rows of panels begin where cache lines do. */
    char *work = (char *)workspace + (-(uintptr_t)workspace & 63);

    p.w = (const void *)w;
    p.x = (const void *)x;
    p.saved = (const void *)saved;
    p.parallel = (void *)parallel;
    kernels.scalars = (const void *)scalars;
    kernels.plane = weights(&p);
    kernels.wanted = wanted;
    p.kernels = &kernels;
    switch (call) {
    case 0:
        dot_forward(&p, y, work);
        break;
    case 1:
        dot_grad_x(&p, y, to_x, work);
        break;
    case 2:
        dot_grad_w(&p, y, to_w, work);
        break;
    case 3:
        dot_grads(&p, y, to_x, to_w, work);
        break;
    case 4:
        dot_grad_extremum(&p, y, to_x, to_w, work);
        break;
    default:
        dot_grad_fold(&p, y, to_x, to_w, work);
    }
}
