// Results of an op, or the gradient of its input, as an implicit matrix product. result[row][position] is, over all k,
//   the reduction of op_term(a[k][row], b[k][position])                        rows are filters, b is the image
//   the sum of the PARTIAL of a[k][row], own[row][position], b[k][position]    with OWN: rows are channels, b is g
// a: the weights and their parameters, packed by pack.cu. b is gathered by a table of taps. Columns of the tile are
// positions. The text before this one defines the op's functions, reduce.cu's Acc, what tile.cu wants, and
//   DEPTH                              how many k a block has in shared memory at a time
//   UNROLLED                           how many k of the inner loop are written one after the other
//   BLOCKS                             blocks that a multiprocessor is to hold
//   PLANES, WEIGHTS(i)                 the weight and parameters beside it; all that op_term takes before x, of
//                                      left[plane][i]
//   SCALARS, TAKE_SCALARS              more parameters of the kernel; statements that make their values
//   RESULT, TO_RESULT(v)               the type of results in memory, and how a SUM becomes one
//   UNIT                               4: positions lie in fours at addresses of 16 bytes, all in the image; else 1
//   LEFT_OUT                           1: where b has nothing to gather there is no term; else it is `pad` there
//   OWN, PARTIAL(...)                  1: the gradient, of g, what `saved` and `told` have there, the weights, and x
//   SAVED, TOLD                        1: the gradient needs `saved`, or `told`, of each result
// How a tile is loaded: each thread has its units of positions, and each STEP-th k of them.
#define UNITS (TILE_COLUMNS / UNIT)
#define GATHERED (UNITS > THREADS ? UNITS / THREADS : 1)
#define STEP (UNITS > THREADS ? 1 : THREADS / UNITS)
#define TAKEN (DEPTH / STEP)
#define QUADS_OF_TILE (PLANES * TILE_ROWS * DEPTH / 4)
#define QUADS ((QUADS_OF_TILE + THREADS - 1) / THREADS)
// Where an element of b's tiles is. (Flat: one address for all that a thread loads.)
#define PLACE(which, k, column) (((which)*DEPTH + (k)) * TILE_COLUMNS + (column))
// Whether results are stored in fours.
#define FOURS (sizeof(RESULT) == 4 && !ARG && whole)

// a: [group][padded_terms][PLANES][padded_rows], padded with zeros to whole tiles.
// own: lies as the result does. saved, told: as b.
// taps: for each k, how many elements after the position's origin its element lies, and its plane, row and column in
// one int. numbers: which tap of the kernel k is, for TOLD.
// Of positions: how many in all; in an image, length; down rows of across positions a plane.
// Of b: its size; for each dimension how far positions are apart, and how far before the image the first is; the
// elements from image to image, and so on. kernel: how many taps the kernel has.
// Of the result: the elements from image to image, and so on; whether positions lie in fours at addresses of 16 bytes;
// where the first is.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT(BLOCKS))
gather(const VALUE *a, const ELEMENT *b, RESULT *result, int *arg, const ELEMENT *own, const VALUE *saved,
       const int *told, const int2 *taps, const int *numbers, VALUE pad,
       int rows, int padded_rows, int terms, int padded_terms, int terms_of_a_split, int splits, long long partial_step,
       int positions, int length, int down, int across,
       int depth, int height, int width, int stride_z, int stride_y, int stride_x, int before_z, int before_y,
       int before_x, int b_image, int b_group, int b_plane, int b_row, int b_column, int kernel,
       int r_image, int r_group, int r_filter, int r_plane, int r_row, int r_column, int whole, int r_first SCALARS)
{
    __shared__ __align__(16) VALUE a_tile[2 * DEPTH * PLANES * TILE_ROWS];
    __shared__ __align__(16) VALUE b_tile[2 * DEPTH * TILE_COLUMNS];
#if LEFT_OUT
    __shared__ __align__(16) unsigned char there[2 * DEPTH * TILE_COLUMNS];
#endif
#if SAVED
    __shared__ __align__(16) VALUE saved_tile[2 * DEPTH * TILE_COLUMNS];
#endif
#if TOLD
    __shared__ __align__(16) int told_tile[2 * DEPTH * TILE_COLUMNS];
#endif
    // What is needed at the end: in the loop, registers are scarce.
    __shared__ int end_position, end_row, end_rest, end_group, end_split;
    TAKE_SCALARS
    const int thread = threadIdx.x, lane_y = lane_row(thread), lane_x = lane_column(thread);
    // Blocks: positions first, then splits, then groups; and rows.
    const int across_tiles = (positions + TILE_COLUMNS - 1) / TILE_COLUMNS, turn = blockIdx.x / across_tiles;
    const int group = turn / splits, split = turn % splits;
    const int first_position = blockIdx.x % across_tiles * TILE_COLUMNS, first_row = blockIdx.y * TILE_ROWS;
    const int first_term = split * terms_of_a_split;
    const int count = min(terms_of_a_split, terms - first_term), whole_tiles = (count - 1) / DEPTH;

    // Where this thread's positions begin.
    const int k_of_thread = GATHERED > 1 ? 0 : thread / UNITS;
    int front[GATHERED], top[GATHERED], left_side[GATHERED], origin[GATHERED];
#pragma unroll
    for (int i = 0; i < GATHERED; i++) {
        const int position = first_position + UNIT * (GATHERED > 1 ? thread + i * THREADS : thread % UNITS);
        const int image = position / length, pixel = position % length, line = pixel / across;
        front[i] = DEEP ? line / down * stride_z - before_z : 0;
        top[i] = (DEEP ? line % down : line) * stride_y - before_y;
        left_side[i] = pixel % across * stride_x - before_x;
        origin[i] = image * b_image + group * b_group + front[i] * b_plane + top[i] * b_row + left_side[i] * b_column;
        if (position >= positions)
            top[i] = NOWHERE;
    }
    // Where the next tile is, of taps and a.
    int next_tap = first_term + k_of_thread;
    int next_a = (group * padded_terms + first_term) * (PLANES * padded_rows) + first_row;

    Acc sums[ROWS][COLUMNS];
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            sums[i][j] = acc_start();

#if OWN
    VALUE mine[ROWS][COLUMNS];
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        const int position = min(first_position + COLUMN(j), positions - 1);
        const int image = position / length, pixel = position % length, line = pixel / across;
        const int z = DEEP ? line / down : 0, y = DEEP ? line % down : line, x = pixel % across;
        const int at = r_first + image * r_image + group * r_group + z * r_plane + y * r_row + x * r_column;
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            mine[i][j] = OF_ELEMENT(own[at + min(first_row + ROW(i), rows - 1) * r_filter]);
    }
#endif

    // The next tile.
    auto load = [&](int which) {
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            const int quad = thread + i * THREADS, line = quad / (TILE_ROWS / 4), row = quad % (TILE_ROWS / 4) * 4;
            if (QUADS_OF_TILE % THREADS == 0 || quad < QUADS_OF_TILE) {
                VALUE *to = &a_tile[which * (4 * QUADS_OF_TILE) + 4 * quad];
                const VALUE *from = a + (next_a + line * padded_rows + row);
                copy<16>(to, from);
                if (sizeof(VALUE) == 8)
                    copy<16>(to + 2, from + 2);
            }
        }
        const int first = PLACE(which, k_of_thread, UNIT * (thread % UNITS));
#pragma unroll
        for (int n = 0; n < TAKEN; n++) {
            const int2 tap = taps[next_tap + n * STEP];
#pragma unroll
            for (int i = 0; i < GATHERED; i++) {
                const int y = top[i] + tap_row(tap.y), x = left_side[i] + tap_column(tap.y), at = origin[i] + tap.x;
                const int to = first + n * STEP * TILE_COLUMNS + i * UNIT * THREADS;
                const bool inside = (!DEEP || (unsigned)(front[i] + tap_plane(tap.y)) < (unsigned)depth) &&
                                    (unsigned)y < (unsigned)height && (unsigned)x < (unsigned)width;
                take<UNIT>(&b_tile[to], b + at, inside, pad);
#if LEFT_OUT
                there[to] = inside;
#endif
#if SAVED
                take_value<UNIT>(&saved_tile[to], saved + at, inside, (VALUE)0);
#endif
#if TOLD
                take_value<UNIT>(&told_tile[to], told + at, inside, -1);
#endif
            }
        }
        next_a += DEPTH * PLANES * padded_rows;
        next_tap += DEPTH;
    };
    auto terms_of = [&](int which, int k, int term_number) {
        VALUE left[PLANES][ROWS], right[COLUMNS];
#pragma unroll
        for (int plane = 0; plane < PLANES; plane++)
#pragma unroll
            for (int i = 0; i < ROWS; i += 4)
                four(&left[plane][i], &a_tile[((which * DEPTH + k) * PLANES + plane) * TILE_ROWS + ROW(i)]);
        unsigned is_there[COLUMNS / 4];
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 4) {
            four(&right[j], &b_tile[PLACE(which, k, COLUMN(j))]);
#if LEFT_OUT
            is_there[j / 4] = four_marks(&there[PLACE(which, k, COLUMN(j))]);
#endif
        }
#if OWN
        VALUE kept[COLUMNS];
        int of_told[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 4) {
#if SAVED
            four(&kept[j], &saved_tile[PLACE(which, k, COLUMN(j))]);
#endif
#if TOLD
            four(&of_told[j], &told_tile[PLACE(which, k, COLUMN(j))]);
#endif
        }
        const int number = TOLD ? numbers[term_number] : 0;
#endif
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
#if LEFT_OUT
                if (is_marked(is_there, j))
#endif
#if OWN
                    PARTIAL(sums[i][j].sum, right[j], kept[j], of_told[j], (first_row + ROW(i)) * kernel + number,
                            WEIGHTS(i), mine[i][j]);
#else
                    acc_add(sums[i][j], op_term(WEIGHTS(i), right[j]), term_number);
#endif
    };

    if (thread == 0) {
        end_position = first_position, end_row = first_row, end_group = group, end_split = split;
        end_rest = count - whole_tiles * DEPTH;
    }
    load(0);
    copies_arrive();
    __syncthreads();
    int which = 0, first_k = first_term;
#pragma unroll 1
    for (int left = whole_tiles; left; left--) {
        load(which ^ 1);
#pragma unroll UNROLLED
        for (int k = 0; k < DEPTH; k++)
            terms_of(which, k, first_k + k);
        which ^= 1, first_k += DEPTH;
        copies_arrive();
        __syncthreads();
    }
    // The last tile may be a part of one.
    const int rest = end_rest;
#pragma unroll 1
    for (int k = 0; k < rest; k++)
        terms_of(which, k, first_k + k);

    result += end_split * partial_step;
#if ARG
    arg += end_split * partial_step;
#endif
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        const int position = end_position + COLUMN(j);
        const int image = position / length, pixel = position % length, line = pixel / across;
        const int z = DEEP ? line / down : 0, y = DEEP ? line % down : line, x = pixel % across;
        const int at = r_first + image * r_image + end_group * r_group + z * r_plane + y * r_row + x * r_column;
        if (position < positions && !(FOURS && j % 4))
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const int row = end_row + ROW(i);
                if (row < rows) {
                    RESULT *to = result + at + row * r_filter;
                    if (FOURS) {
                        Four<RESULT> all;
#pragma unroll
                        for (int n = 0; n < 4; n++)
                            all.at[n] = TO_RESULT(acc_result(sums[i][j / 4 * 4 + n]));
                        *(Four<RESULT> *)to = all;
                    } else
                        *to = TO_RESULT(acc_result(sums[i][j]));
#if ARG
                    arg[at + row * r_filter] = acc_at(sums[i][j], end_split * terms_of_a_split);
#endif
                }
            }
    }
}
