/* Memory: the workspace of each call, and huge pages. */
#include "dot_workspace.h"

#include "platform.h"

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
    /* All huge pages that the memory touches, not only those that it fills: small pages at its ends would take longer
     * than all the huge ones. */
    const uintptr_t start = (uintptr_t)memory / HUGE_PAGE * HUGE_PAGE;

    huge_pages(start, ((uintptr_t)memory + (uintptr_t)bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
}
