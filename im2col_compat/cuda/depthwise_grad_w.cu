// The gradient of the weight, or of a parameter beside it, where each group has one channel and few filters. A block
// has a filter and a part of its positions; join.cu adds the parts up. The text before this one defines what
// depthwise_grad_x.cu wants.
#define AREA (KERNEL_Y * KERNEL_X)

// filters: of a group; blocks: filters of all groups, and splits.
extern "C" __global__ void __launch_bounds__(256, BLOCKS)
depthwise_grad_w(OF_PLANES_DECLARED const ELEMENT *x, const ELEMENT *g, const VALUE *saved, const int *told,
                 RESULT *partial, VALUE pad, int positions, int positions_of_a_split, int groups, int filters,
                 int height, int width, int down, int across, int before_y, int before_x SCALARS)
{
    __shared__ VALUE shared[256];
    TAKE_SCALARS
    const int all = groups * filters, filter = blockIdx.x % all, split = blockIdx.x / all, length = down * across;
    const int last = min(positions, (split + 1) * positions_of_a_split);
    VALUE mine[AREA][PLANES];
    Acc sums[AREA];
#pragma unroll
    for (int k = 0; k < AREA; k++) {
        const VALUE here[PLANES] = {OF_PLANES(filter *AREA + k)};
#pragma unroll
        for (int plane = 0; plane < PLANES; plane++)
            mine[k][plane] = here[plane];
        sums[k] = acc_start();
    }
    for (int at = split * positions_of_a_split + threadIdx.x; at < last; at += 256) {
        const int image = at / length, pixel = at % length;
        const int top = pixel / across * STRIDE_Y - before_y, left = pixel % across * STRIDE_X - before_x;
        const ELEMENT *plane = x + ((long long)image * groups + filter / filters) * height * width;
        const long long from = ((long long)image * all + filter) * length + pixel;
        const VALUE one = OF_ELEMENT(g[from]), kept = SAVED ? saved[from] : (VALUE)0;
        const int of_told = TOLD ? told[from] : 0;
#pragma unroll
        for (int k = 0; k < AREA; k++) {
            const VALUE *here = mine[k];
            const int y = top + k / KERNEL_X * DILATION_Y, column = left + k % KERNEL_X * DILATION_X;
            const bool inside = (unsigned)y < (unsigned)height && (unsigned)column < (unsigned)width;
            VALUE value = pad;
            if (inside)
                value = OF_ELEMENT(plane[y * width + column]);
            if (!LEFT_OUT || inside)
                PARTIAL(sums[k].sum, one, kept, of_told, k, WEIGHTS(i), value);
        }
    }
#pragma unroll 1
    for (int k = 0; k < AREA; k++) {
        VALUE sum = 0;
#pragma unroll
        for (int i = 0; i < AREA; i++)
            sum = i == k ? sums[i].sum : sum;
        shared[threadIdx.x] = sum;
        __syncthreads();
        for (int half = 128; half; half /= 2) {
            if (threadIdx.x < half)
                shared[threadIdx.x] += shared[threadIdx.x + half];
            __syncthreads();
        }
        if (threadIdx.x == 0)
            partial[((long long)split * all + filter) * AREA + k] = TO_RESULT(shared[0]);
        __syncthreads();
    }
}
