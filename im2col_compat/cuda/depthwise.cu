// Results where each group has one channel and few filters: memory is the limit, so a thread has ALONG neighbouring
// results in registers, and reads each pixel once for all of them. The text before this one defines reduce.cu's Acc,
// and
//   ALONG                                            a thread's results
//   BLOCKS                                           blocks that a multiprocessor is to hold; 0: as many as the compiler thinks
//   KERNEL_Y KERNEL_X STRIDE_Y STRIDE_X DILATION_Y DILATION_X
//   OF_PLANES(at), OF_PLANES_DECLARED, WEIGHTS(i)     as in grad_w.cu; the latter of here[plane]
//   SCALARS, TAKE_SCALARS, VALUE, ELEMENT, OF_ELEMENT, RESULT, TO_RESULT, LEFT_OUT, ARG as in gather.cu
#define SPAN ((ALONG - 1) * STRIDE_X + (KERNEL_X - 1) * DILATION_X + 1)

// planes: images times groups times filters of a group.
extern "C" __global__ void __launch_bounds__(128, BLOCKS)
depthwise(OF_PLANES_DECLARED const ELEMENT *x, RESULT *result, int *arg, VALUE pad, int planes, int groups, int filters,
          int height, int width, int down, int across, int before_y, int before_x SCALARS)
{
    TAKE_SCALARS
    const int runs = (across + ALONG - 1) / ALONG;
    const long long at = (long long)blockIdx.x * 128 + threadIdx.x;
    const int plane = at / (runs * down), rest = at % (runs * down), y = rest / runs, first = rest % runs * ALONG;
    if (plane >= planes)
        return;
    const int filter = plane % (groups * filters);
    x += (long long)(plane / filters) * height * width;
    Acc sums[ALONG];
#pragma unroll
    for (int i = 0; i < ALONG; i++)
        sums[i] = acc_start();
#pragma unroll
    for (int ky = 0; ky < KERNEL_Y; ky++) {
        const int row = y * STRIDE_Y - before_y + ky * DILATION_Y;
        VALUE line[SPAN];
        bool there[SPAN];
#pragma unroll
        for (int i = 0; i < SPAN; i++) {
            const int column = first * STRIDE_X - before_x + i;
            there[i] = (unsigned)row < (unsigned)height && (unsigned)column < (unsigned)width;
            line[i] = pad;
            if (there[i])
                line[i] = OF_ELEMENT(x[row * width + column]);
        }
#pragma unroll
        for (int kx = 0; kx < KERNEL_X; kx++) {
            const int k = ky * KERNEL_X + kx, of_weight = filter * (KERNEL_Y * KERNEL_X) + k;
            const VALUE here[PLANES] = {OF_PLANES(of_weight)};
#pragma unroll
            for (int i = 0; i < ALONG; i++)
                if (!LEFT_OUT || there[i * STRIDE_X + kx * DILATION_X])
                    acc_add(sums[i], op_term(WEIGHTS(i), line[i * STRIDE_X + kx * DILATION_X]), k);
        }
    }
    const long long to = (long long)plane * down * across + y * across + first;
#pragma unroll
    for (int i = 0; i < ALONG; i++)
        if (first + i < across) {
            result[to + i] = TO_RESULT(acc_result(sums[i]));
#if ARG
            arg[to + i] = acc_at(sums[i], 0);
#endif
        }
}
