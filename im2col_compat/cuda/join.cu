// The splits' results become one, in a fixed order. The text before this one defines RESULT and TO_RESULT, as
// gather.cu has them, and reduce.cu's Acc.

extern "C" __global__ void __launch_bounds__(256)
join(const SUM *partial, const int *partial_arg, RESULT *result, int *arg, int splits, long long step)
{
    const long long at = (long long)blockIdx.x * 256 + threadIdx.x;
    if (at >= step)
        return;
    Acc acc = acc_start();
    for (int split = 0; split < splits; split++) {
#if ARG
        const int k = partial_arg[split * step + at];
        if (k >= 0)
            acc_add(acc, partial[split * step + at], k);
#else
        acc_add(acc, partial[split * step + at], split);
#endif
    }
    result[at] = TO_RESULT(acc_result(acc));
#if ARG
    arg[at] = acc.at;
#endif
}
