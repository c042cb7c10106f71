// Results of which each term is looked up in a table, by a byte of w and a byte of x. Lanes are neighbouring positions,
// and a thread has them for all rows, filters, of its block: all lanes want the same row of the table, of which few
// entries lie in the same bank of shared memory. The text before this one defines reduce.cu's Acc, tile.cu's taps, and
//   ROWS, EACH, THREADS    a block's filters; a thread's positions, THREADS apart
//   DEPTH                  how many terms a block has in shared memory at a time
//   BLOCKS                 blocks that a multiprocessor is to hold
//   ENTRY                  the type of the table's entries
//   TABLE_ROWS, TABLE_COLUMNS    powers of two: how many bytes w, and x, may be
//   WHOLE                  1: the whole table is in shared memory; 0: rows of it, those of the next weights
//   RESULT                 the type of results in memory
//   LEFT_OUT               1: where there is no pixel there is no term; else it is `pad` there
// What is fetched for each tile: where each weight's row begins, or all of it, in fours.
#define QUADS_OF_ROW (WHOLE ? 1 : TABLE_COLUMNS / 4)
#define FETCHED (DEPTH * ROWS * QUADS_OF_ROW)
#define KEPT (WHOLE ? TABLE_ROWS * TABLE_COLUMNS : 2 * 4 * FETCHED)

// w: [group][row][term], of bytes. table: [TABLE_ROWS][TABLE_COLUMNS]. taps: as in gather.cu. Positions, the image and
// the result: as there.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT(BLOCKS))
lookups(const uint8_t *w, const uint8_t *x, const ENTRY *table, RESULT *result, const int2 *taps, int pad,
        int rows, int terms, int terms_of_a_split, int splits, long long partial_step,
        int positions, int length, int down, int across, int depth, int height, int width,
        int stride_z, int stride_y, int stride_x, int before_z, int before_y, int before_x,
        int x_image, int x_group, int x_plane, int x_row, int x_column,
        int r_image, int r_group, int r_filter, int r_plane, int r_row, int r_column)
{
    __shared__ __align__(16) ENTRY kept[KEPT];
#if WHOLE
    __shared__ __align__(16) int picked[2 * FETCHED];
#endif
    const int thread = threadIdx.x;
    // Blocks: positions first, then splits, then groups; and rows.
    const int across_tiles = (positions + EACH * THREADS - 1) / (EACH * THREADS), turn = blockIdx.x / across_tiles;
    const int group = turn / splits, split = turn % splits;
    const int first_position = blockIdx.x % across_tiles * (EACH * THREADS) + thread, first_row = blockIdx.y * ROWS;
    const int first_term = split * terms_of_a_split, last_term = min(terms, first_term + terms_of_a_split);

    int front[EACH], top[EACH], left_side[EACH], origin[EACH];
    Acc sums[ROWS][EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        const int position = first_position + e * THREADS;
        const int image = position / length, pixel = position % length, line = pixel / across;
        front[e] = DEEP ? line / down * stride_z - before_z : 0;
        top[e] = (DEEP ? line % down : line) * stride_y - before_y;
        left_side[e] = pixel % across * stride_x - before_x;
        origin[e] = image * x_image + group * x_group + front[e] * x_plane + top[e] * x_row + left_side[e] * x_column;
        if (position >= positions)
            top[e] = NOWHERE;
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            sums[i][e] = acc_start();
    }
    w += (long long)group * rows * terms;
    pad &= TABLE_COLUMNS - 1;
    int codes[DEPTH][EACH], next_codes[DEPTH][EACH];

    // The next pixels as columns of the table, -1 where there is none; and the next weights as rows of it.
    auto load = [&](int which, int first) {
#pragma unroll
        for (int i = 0; i < (FETCHED + THREADS - 1) / THREADS; i++) {
            const unsigned at = thread + i * THREADS, line = at / QUADS_OF_ROW;
            if (FETCHED % THREADS == 0 || at < FETCHED) {
                const int k = min(first + (int)(line / ROWS), terms - 1);
                const int row = w[min(first_row + (int)(line % ROWS), rows - 1) * terms + k] & (TABLE_ROWS - 1);
#if WHOLE
                picked[which * FETCHED + at] = row * TABLE_COLUMNS;
#else
                copy<16>(&kept[4 * (which * FETCHED + at)], table + (row * TABLE_COLUMNS + at % QUADS_OF_ROW * 4));
#endif
            }
        }
#pragma unroll
        for (int n = 0; n < DEPTH; n++) {
            const int2 tap = taps[first + n];
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                const int y = top[e] + tap_row(tap.y), column = left_side[e] + tap_column(tap.y);
                const bool inside = (!DEEP || (unsigned)(front[e] + tap_plane(tap.y)) < (unsigned)depth) &&
                                    (unsigned)y < (unsigned)height && (unsigned)column < (unsigned)width;
                next_codes[n][e] = LEFT_OUT ? -1 : pad;
                if (inside)
                    next_codes[n][e] = x[origin[e] + tap.x] & (TABLE_COLUMNS - 1);
            }
        }
    };

#if WHOLE
    for (int i = thread; i < KEPT / 4; i += THREADS)
        copy<16>(&kept[4 * i], table + 4 * i);
#endif
    load(0, first_term);
    copies_arrive();
    __syncthreads();
    int which = 0;
#pragma unroll 1
    for (int first = first_term; first < last_term; first += DEPTH) {
#pragma unroll
        for (int n = 0; n < DEPTH; n++)
#pragma unroll
            for (int e = 0; e < EACH; e++)
                codes[n][e] = next_codes[n][e];
        if (first + DEPTH < last_term)
            load(which ^ 1, first + DEPTH);
#pragma unroll
        for (int n = 0; n < DEPTH; n++)
            if (first + n < last_term) {
#pragma unroll
                for (int i = 0; i < ROWS; i++) {
#if WHOLE
                    const int row = picked[(which * DEPTH + n) * ROWS + i];
#else
                    const int row = ((which * DEPTH + n) * ROWS + i) * TABLE_COLUMNS;
#endif
#pragma unroll
                    for (int e = 0; e < EACH; e++)
#if LEFT_OUT
                        if (codes[n][e] >= 0)
#endif
                            acc_add(sums[i][e], kept[row + codes[n][e]], first + n);
                }
            }
        which ^= 1;
        copies_arrive();
        __syncthreads();
    }

    result += split * partial_step;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        const int position = first_position + e * THREADS;
        const int image = position / length, pixel = position % length, line = pixel / across;
        const int z = DEEP ? line / down : 0, y = DEEP ? line % down : line, column = pixel % across;
        const int at = image * r_image + group * r_group + z * r_plane + y * r_row + column * r_column;
        if (position < positions)
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                if (first_row + i < rows)
                    result[at + (first_row + i) * r_filter] = (RESULT)acc_result(sums[i][e]);
    }
}
