// The gradient of the weight, or of a parameter beside it: grad[row][term] is the sum over positions of the PARTIAL
// of w[row][term], g[row][position] and x[term][position], in splits of the positions, which join.cu adds up. Rows
// are filters. The text before this one defines the op's functions, reduce.cu's Acc, what tile.cu wants, and
//   DEPTH                          how many positions a block has in shared memory at a time
//   OF_PLANES(at)                  the weight and the parameters beside it, which lie alike, at one place
//   OF_PLANES_DECLARED             the kernel's parameters that these are
//   WEIGHTS(i)                     all arguments of op_term before x, of mine[i][j][plane]
//   FEATURES_LAST                  1: neighbours in memory are rows, and terms; 0: positions
//   UNROLLED, BLOCKS, PLANES, SCALARS, TAKE_SCALARS, RESULT, TO_RESULT, LEFT_OUT, PARTIAL, SAVED, TOLD as in gather.cu
// Loads: a thread has one position of each tile, and each ACROSS-th row and term. 4 more a line, so that a warp's
// stores meet few banks twice.
#define ACROSS (THREADS / DEPTH)
#define G_TAKEN ((TILE_ROWS + ACROSS - 1) / ACROSS)
#define X_TAKEN ((TILE_COLUMNS + ACROSS - 1) / ACROSS)

// taps: as in gather.cu, padded to whole tiles of terms. g, saved and told lie alike, by the steps g_image and so on.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT(BLOCKS))
grad_w(OF_PLANES_DECLARED const ELEMENT *x, const ELEMENT *g, const VALUE *saved, const int *told, RESULT *partial,
       const int2 *taps, VALUE pad, int rows, int terms, int positions_of_a_split, int splits, long long partial_step,
       int positions, int length, int down, int across,
       int depth, int height, int width, int stride_z, int stride_y, int stride_x, int before_z, int before_y,
       int before_x, int x_image, int x_group, int x_plane, int x_row, int x_column,
       int g_image, int g_group, int g_filter, int g_plane, int g_row, int g_column SCALARS)
{
    __shared__ __align__(16) VALUE g_tile[2][DEPTH][TILE_ROWS + 4];
    __shared__ __align__(16) VALUE x_tile[2][DEPTH][TILE_COLUMNS + 4];
#if LEFT_OUT
    __shared__ __align__(16) unsigned char there[2][DEPTH][TILE_COLUMNS + 4];
#endif
#if SAVED
    __shared__ __align__(16) VALUE saved_tile[2][DEPTH][TILE_ROWS + 4];
#endif
#if TOLD
    __shared__ __align__(16) int told_tile[2][DEPTH][TILE_ROWS + 4];
#endif
    TAKE_SCALARS
    const int thread = threadIdx.x, lane_y = lane_row(thread), lane_x = lane_column(thread);
    // Blocks: terms first, then splits, then groups; and rows.
    const int term_tiles = (terms + TILE_COLUMNS - 1) / TILE_COLUMNS, turn = blockIdx.x / term_tiles;
    const int group = turn / splits, split = turn % splits;
    const int first_term = blockIdx.x % term_tiles * TILE_COLUMNS, first_row = blockIdx.y * TILE_ROWS;
    const int first_position = split * positions_of_a_split;
    const int count = min(positions_of_a_split, positions - first_position), tiles = (count + DEPTH - 1) / DEPTH;

    // The position that this thread loads next, and its rows and terms.
    const int my_position = FEATURES_LAST ? thread / ACROSS : thread % DEPTH;
    const int my_row = FEATURES_LAST ? thread % ACROSS : thread / DEPTH;
    int position = first_position + my_position;
    int image = position / length, at_x = position % length % across;
    int at_y = DEEP ? position % length / across % down : position % length / across;
    int at_z = DEEP ? position % length / across / down : 0;
    int2 tap[X_TAKEN];
#pragma unroll
    for (int i = 0; i < X_TAKEN; i++)
        tap[i] = taps[first_term + min(my_row + i * ACROSS, TILE_COLUMNS - 1)];
    x += (long long)group * x_group;
    const long long first_of_rows = (long long)group * g_group + (long long)(first_row + my_row) * g_filter;

    Acc sums[ROWS][COLUMNS];
    VALUE mine[ROWS][COLUMNS][PLANES];
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            const int row = min(first_row + ROW(i), rows - 1), term = min(first_term + COLUMN(j), terms - 1);
            const long long at = (long long)(group * rows + row) * terms + term;
            const VALUE here[PLANES] = {OF_PLANES(at)};
#pragma unroll
            for (int plane = 0; plane < PLANES; plane++)
                mine[i][j][plane] = here[plane];
            sums[i][j] = acc_start();
        }

    auto load = [&](int which) {
        const bool real = position < positions;
        const long long of_image = first_of_rows + (long long)image * g_image;
        const long long of_position = of_image + at_z * g_plane + at_y * g_row + at_x * g_column;
#pragma unroll
        for (int i = 0; i < G_TAKEN; i++) {
            const int row = my_row + i * ACROSS;
            const bool is = real && first_row + row < rows;
            const long long at = of_position + (long long)i * ACROSS * g_filter;
            if (TILE_ROWS % ACROSS == 0 || row < TILE_ROWS) {
                take<1>(&g_tile[which][my_position][row], g + at, is, (VALUE)0);
#if SAVED
                take_value<1>(&saved_tile[which][my_position][row], saved + at, is, (VALUE)0);
#endif
#if TOLD
                take_value<1>(&told_tile[which][my_position][row], told + at, is, -1);
#endif
            }
        }
        const int front = at_z * stride_z - before_z, left_side = at_x * stride_x - before_x;
        const int top = at_y * stride_y - before_y;
        const int origin = image * x_image + front * x_plane + top * x_row + left_side * x_column;
#pragma unroll
        for (int i = 0; i < X_TAKEN; i++) {
            const int term = my_row + i * ACROSS;
            const int y = (real ? top : NOWHERE) + tap_row(tap[i].y), column = left_side + tap_column(tap[i].y);
            const bool inside = (!DEEP || (unsigned)(front + tap_plane(tap[i].y)) < (unsigned)depth) &&
                                (unsigned)y < (unsigned)height && (unsigned)column < (unsigned)width;
            if (TILE_COLUMNS % ACROSS == 0 || term < TILE_COLUMNS) {
                take<1>(&x_tile[which][my_position][term], x + (origin + tap[i].x), inside, pad);
#if LEFT_OUT
                there[which][my_position][term] = inside;
#endif
            }
        }
        position += DEPTH;
        at_x += DEPTH;
        while (at_x >= across) {
            at_x -= across;
            if (++at_y == down) {
                at_y = 0;
                if (!DEEP)
                    image++;
                else if (++at_z * down * across == length)
                    at_z = 0, image++;
            }
        }
    };
    auto terms_of = [&](int which, int k) {
        VALUE right[COLUMNS], of_g[ROWS], kept[ROWS];
        int of_told[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i += 4) {
            four(&of_g[i], &g_tile[which][k][ROW(i)]);
#if SAVED
            four(&kept[i], &saved_tile[which][k][ROW(i)]);
#endif
#if TOLD
            four(&of_told[i], &told_tile[which][k][ROW(i)]);
#endif
        }
        unsigned is_there[COLUMNS / 4];
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 4) {
            four(&right[j], &x_tile[which][k][COLUMN(j)]);
#if LEFT_OUT
            is_there[j / 4] = four_marks(&there[which][k][COLUMN(j)]);
#endif
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
#if LEFT_OUT
                if (is_marked(is_there, j))
#endif
                    PARTIAL(sums[i][j].sum, of_g[i], kept[i], of_told[i], first_term + COLUMN(j), WEIGHTS(i), right[j]);
    };

    load(0);
    copies_arrive();
    __syncthreads();
    for (int tile = 0; tile < tiles - 1; tile++) {
        load(tile + 1 & 1);
#pragma unroll UNROLLED
        for (int k = 0; k < DEPTH; k++)
            terms_of(tile & 1, k);
        copies_arrive();
        __syncthreads();
    }
#pragma unroll 1
    for (int k = 0; k < count - (tiles - 1) * DEPTH; k++)
        terms_of(tiles - 1 & 1, k);

    partial += split * partial_step;
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            const int row = first_row + ROW(i), term = first_term + COLUMN(j);
            if (row < rows && term < terms)
                partial[(long long)(group * rows + row) * terms + term] = TO_RESULT(sums[i][j].sum);
        }
}
