/* Runs tasks on several threads. A task's result must not depend on which thread runs it. */
#ifndef PARALLEL_H
#define PARALLEL_H

#include <stdint.h>

/* function(context, task, scratch) for task = 0 ... tasks - 1, each thread with `bytes` of scratch of its own.
 * openmp: GOMP_parallel, or NULL for threads of our own. */
void parallel_for(int32_t threads, void *openmp, int64_t tasks, void (*function)(void *, int64_t, char *),
                  void *context, char *scratch, int64_t bytes);

#endif
