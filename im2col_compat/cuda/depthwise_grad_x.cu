// The gradient of x where each group has one channel and few filters. The text before this one defines what
// depthwise.cu wants, and PARTIAL, SAVED and TOLD as in gather.cu.

// planes: images times groups.
extern "C" __global__ void __launch_bounds__(128, BLOCKS)
depthwise_grad_x(OF_PLANES_DECLARED const ELEMENT *x, const ELEMENT *g, const VALUE *saved, const int *told,
                 RESULT *result, int planes, int groups, int filters, int height, int width, int down, int across,
                 int before_y, int before_x SCALARS)
{
    TAKE_SCALARS
    const int runs = (width + ALONG - 1) / ALONG;
    const long long at = (long long)blockIdx.x * 128 + threadIdx.x;
    const int plane = at / (runs * height), rest = at % (runs * height), y = rest / runs, first = rest % runs * ALONG;
    if (plane >= planes)
        return;
    const long long to = (long long)plane * height * width + y * width + first;
    VALUE mine[ALONG];
    Acc sums[ALONG];
#pragma unroll
    for (int i = 0; i < ALONG; i++) {
        mine[i] = first + i < width ? (VALUE)OF_ELEMENT(x[to + i]) : (VALUE)0;
        sums[i] = acc_start();
    }
    for (int m = 0; m < filters; m++) {
        const int filter = plane % groups * filters + m;
        const long long of_plane = ((long long)plane * filters + m) * down * across;
#pragma unroll
        for (int ky = 0; ky < KERNEL_Y; ky++) {
            const int row = y + before_y - ky * DILATION_Y;
            if (row < 0 || row % STRIDE_Y || row / STRIDE_Y >= down)
                continue;
            const long long of_row = of_plane + row / STRIDE_Y * across;
#pragma unroll
            for (int kx = 0; kx < KERNEL_X; kx++) {
                const int k = ky * KERNEL_X + kx, of_weight = filter * (KERNEL_Y * KERNEL_X) + k;
                const VALUE here[PLANES] = {OF_PLANES(of_weight)};
#pragma unroll
                for (int i = 0; i < ALONG; i++) {
                    const int column = first + i + before_x - kx * DILATION_X;
                    if (column >= 0 && column % STRIDE_X == 0 && column / STRIDE_X < across) {
                        const long long from = of_row + column / STRIDE_X;
                        PARTIAL(sums[i].sum, OF_ELEMENT(g[from]), SAVED ? saved[from] : (VALUE)0,
                                TOLD ? told[from] : 0, k, WEIGHTS(i), mine[i]);
                    }
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < ALONG; i++)
        if (first + i < width)
            result[to + i] = TO_RESULT(sums[i].sum);
}
