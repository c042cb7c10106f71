/* Threads: the OpenMP runtime's, where the process has one loaded, else our own.
 *
 * The library isn't linked with OpenMP: that would bring a second runtime into a process that has
 * PyTorch's, and hang in forked children. PyTorch's runtime, found at run time, has threads waiting.
 * Our own cost some 50 microseconds a call, and compete with PyTorch's spinning ones.
 */
#include "parallel.h"

#include <stddef.h>

#include "platform.h"

/* The most threads of our own. */
#define MOST 256

struct team {
    void (*function)(void *, int64_t, char *);
    void *context;
    char *scratch;
    int64_t bytes;
    size_t tasks;
    size_t next; /* As wide as a pointer: 32-bit machines count wider ones by a library of their own, libatomic. */
    int32_t members;
};

static void work(void *data)
{
    struct team *team = (struct team *)data;
    char *scratch = team->scratch + __atomic_fetch_add(&team->members, 1, __ATOMIC_RELAXED) * team->bytes;
    size_t task;

    while ((task = __atomic_fetch_add(&team->next, 1, __ATOMIC_RELAXED)) < team->tasks)
        team->function(team->context, (int64_t)task, scratch);
}

THREAD_FUNCTION(work_thread, data)
{
    work(data);
    return THREAD_ENDS;
}

void parallel_for(int32_t threads, void *openmp, int64_t tasks, void (*function)(void *, int64_t, char *),
                  void *context, char *scratch, int64_t bytes)
{
    struct team team = {function, context, scratch, bytes, (size_t)tasks, 0, 0};

    if (threads > tasks)
        threads = (int32_t)tasks;
    if (threads < 2) {
        work(&team);
    } else if (openmp != NULL) {
        /* GOMP_parallel(function, data, threads, flags) */
        ((void (*)(void (*)(void *), void *, unsigned, unsigned))openmp)(work, &team, (unsigned)threads, 0);
    } else {
        thread others[MOST];
        int started = 0, i;

        while (started < threads - 1 && started < MOST && thread_start(&others[started], work_thread, &team))
            started++;
        work(&team);
        for (i = 0; i < started; i++)
            thread_join(others[i]);
    }
}
