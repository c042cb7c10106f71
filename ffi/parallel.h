/* Runs tasks on several threads. A task's result must not depend on which thread runs it. */
#ifndef PARALLEL_H
#define PARALLEL_H

#include <stdint.h>

struct dot_problem;

/* function(context, task, scratch) for task = 0 ... tasks - 1, each thread with `bytes` of scratch of its own;
 * p says how many threads and how they are had. */
void parallel_for(const struct dot_problem *p, int64_t tasks, void (*function)(void *, int64_t, char *), void *context,
                  char *scratch, int64_t bytes);

#endif
