/* Memory: the workspace of each call, and huge pages. */
#include "dot_workspace.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

int64_t dot_workspace(const struct dot_problem *p, int call)
{
    switch (call) {
    case 0:
        return dot_forward_workspace(p);
    case 1:
        return dot_grad_x_workspace(p);
    case 2:
        return dot_grad_w_workspace(p);
    case 3:
        return dot_grads_workspace(p);
    case 4:
        return dot_grad_extremum_workspace(p);
    default:
        return dot_grad_fold_workspace(p);
    }
}

void dot_advise(void *memory, int64_t bytes)
{
#if defined(MADV_HUGEPAGE)
    /* All huge pages that the memory touches, not only those that it fills: small pages at its ends would take longer
     * than all the huge ones. */
    const uintptr_t page = (uintptr_t)2 << 20, start = (uintptr_t)memory / page * page;
    const uintptr_t end = ((uintptr_t)memory + (uintptr_t)bytes + page - 1) / page * page;

    /* Only a wish: what it returns changes nothing. */
    madvise((void *)start, end - start, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}
