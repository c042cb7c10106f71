// Sums of products of signs, which are packed into words: as many as are equal, less those that differ. Rows are
// filters, columns positions. The text before this one defines what tile.cu wants, of words, and
//   DEPTH           how many words a block has in shared memory at a time: 8; ROWS: 4
//   BLOCKS          blocks that a multiprocessor is to hold
//   PACKED          1: x has a word for each position and word of w, from pack_columns.cu or pack_rows.cu; 0: it has
//                   words of an image's channels, which are gathered by a table of taps
//   LEFT_OUT        1: taps may lead out of the image, and count as nothing there
//   RESULT          the type of results in memory
// How a tile is loaded: as in gather.cu, word by word.
#define GATHERED (TILE_COLUMNS > THREADS ? TILE_COLUMNS / THREADS : 1)
#define STEP (TILE_COLUMNS > THREADS ? 1 : THREADS / TILE_COLUMNS)
#define TAKEN (DEPTH / STEP)
#define QUADS_OF_TILE (TILE_ROWS * DEPTH / 4)
#define QUADS ((QUADS_OF_TILE + THREADS - 1) / THREADS)
#define PLACE(which, k, column) (((which)*DEPTH + (k)) * TILE_COLUMNS + (column))
// Whether results are stored in fours.
#define FOURS (sizeof(RESULT) == 4 && whole)

// Counts as bits of sums and carries: of three words as of two.
OP_FUNCTION void carried(uint32_t &sum, uint32_t &carry, const uint32_t a, const uint32_t b, const uint32_t c)
{
#ifdef __CUDACC_RTC__
    // An instruction each: the compiler would find others for what a, b and c are made of, and more.
    asm("lop3.b32 %0, %1, %2, %3, 0x96;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    asm("lop3.b32 %0, %1, %2, %3, 0xe8;" : "=r"(carry) : "r"(a), "r"(b), "r"(c));
#else
    sum = a ^ b ^ c, carry = (a & b) | (c & (a | b));
#endif
}

OP_FUNCTION void two(uint32_t *to, const uint32_t *from)
{
    const int2 both = *(const int2 *)from;
    to[0] = both.x, to[1] = both.y;
}

// How many bits of eight words are set: four counts, which cost as much as four additions each, and not eight.
OP_FUNCTION int bits_of_eight(const uint32_t *d)
{
    uint32_t a, b, ones, twos, fours, carries[3];
    carried(a, carries[0], d[0], d[1], d[2]);
    carried(b, carries[1], d[3], d[4], d[5]);
    carried(ones, carries[2], a, b, d[6]);
    carried(twos, fours, carries[0], carries[1], carries[2]);
    return __popc(ones) + __popc(d[7]) + 2 * __popc(twos) + 4 * __popc(fours);
}

// Of taps that begin at `first`, how many lie from 0 to size.
OP_FUNCTION int taps_inside(const int first, const int size, const int dilation, const int kernel)
{
    const int low = first < 0 ? (dilation - 1 - first) / dilation : 0;
    const int high = first < size ? min(kernel, (size - 1 - first) / dilation + 1) : 0;
    return max(0, high - low);
}

// w: [group][padded_words][padded_rows], padded with zeros to whole tiles.
// x: PACKED: [group][word][position]; else of the steps x_image and so on.
// inside: PACKED: [word][position], of one image.
// taps: for each word, as in gather.cu. terms: signs of a result.
// Positions, the image, the kernel and the result as in gather.cu; those of the image are in pixels, of x in words.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT(BLOCKS))
signs(const uint32_t *w, const uint32_t *x, const uint32_t *inside, RESULT *result, const int2 *taps,
      int rows, int padded_rows, int words, int padded_words, int words_of_a_split, int splits, long long partial_step,
      int positions, int length, int down, int across, int depth, int height, int width,
      int stride_z, int stride_y, int stride_x, int before_z, int before_y, int before_x,
      int x_image, int x_group, int x_plane, int x_row, int x_column,
      int terms, int channels, int kernel_z, int kernel_y, int kernel_x, int dilation_z, int dilation_y, int dilation_x,
      int r_image, int r_group, int r_filter, int r_plane, int r_row, int r_column, int whole)
{
    __shared__ __align__(16) uint32_t w_tile[2 * DEPTH * TILE_ROWS];
    __shared__ __align__(16) uint32_t x_tile[2 * DEPTH * TILE_COLUMNS];
#if LEFT_OUT
    __shared__ __align__(16) uint32_t there_tile[2 * DEPTH * TILE_COLUMNS];
#endif
    // What is needed at the end: in the loop, registers are scarce.
    __shared__ int end_position, end_row, end_group, end_split;
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const int lane_y = warp / WARPS_X * WARP_Y + lane / WARP_X, lane_x = warp % WARPS_X * WARP_X + lane % WARP_X;
    // Blocks: positions first, then splits, then groups; and rows.
    const int across_tiles = (positions + TILE_COLUMNS - 1) / TILE_COLUMNS, turn = blockIdx.x / across_tiles;
    const int group = turn / splits, split = turn % splits;
    const int first_position = blockIdx.x % across_tiles * TILE_COLUMNS, first_row = blockIdx.y * TILE_ROWS;
    const int first_word = split * words_of_a_split, last_word = min(words, first_word + words_of_a_split);
    const int whole_tiles = (last_word - first_word - 1) / DEPTH;

    // Where this thread's positions begin.
    const int k_of_thread = GATHERED > 1 ? 0 : thread / TILE_COLUMNS;
    int origin[GATHERED], place[GATHERED], front[GATHERED], top[GATHERED], left_side[GATHERED];
#pragma unroll
    for (int i = 0; i < GATHERED; i++) {
        const int position = first_position + (GATHERED > 1 ? thread + i * THREADS : thread % TILE_COLUMNS);
        const int image = position / length, pixel = position % length, line = pixel / across;
        front[i] = DEEP ? line / down * stride_z - before_z : 0;
        top[i] = (DEEP ? line % down : line) * stride_y - before_y;
        left_side[i] = pixel % across * stride_x - before_x;
        origin[i] = image * x_image + group * x_group + front[i] * x_plane + top[i] * x_row + left_side[i] * x_column;
        place[i] = pixel;
        if (PACKED)
            origin[i] = group * x_group + position;
        if (position >= positions)
            top[i] = NOWHERE;
    }
    int next = first_word + k_of_thread;
    int next_w = (group * padded_words + first_word) * padded_rows + first_row;

    int differ[ROWS][COLUMNS];
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            differ[i][j] = 0;

    auto load = [&](int which) {
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            const int quad = thread + i * THREADS, line = quad / (TILE_ROWS / 4), row = quad % (TILE_ROWS / 4) * 4;
            if (QUADS_OF_TILE % THREADS == 0 || quad < QUADS_OF_TILE)
                copy<16>(&w_tile[which * (4 * QUADS_OF_TILE) + 4 * quad], w + (next_w + line * padded_rows + row));
        }
#pragma unroll
        for (int n = 0; n < TAKEN; n++) {
            const int k = next + n * STEP, first = PLACE(which, k_of_thread + n * STEP, thread % TILE_COLUMNS);
            const int2 tap = PACKED ? int2() : taps[k];
#pragma unroll
            for (int i = 0; i < GATHERED; i++) {
                const int to = first + i * THREADS;
                if (PACKED) {
                    const bool is = k < last_word && top[i] != NOWHERE;
                    take_value<1>(&x_tile[to], x + (origin[i] + k * positions), is, 0u);
#if LEFT_OUT
                    take_value<1>(&there_tile[to], inside + (place[i] + k * length), is, 0u);
#endif
                } else {
                    const int y = top[i] + tap_row(tap.y), column = left_side[i] + tap_column(tap.y);
                    const bool is = (!DEEP || (unsigned)(front[i] + tap_plane(tap.y)) < (unsigned)depth) &&
                                    (unsigned)y < (unsigned)height && (unsigned)column < (unsigned)width &&
                                    k < last_word;
                    take_value<1>(&x_tile[to], x + (origin[i] + tap.x), is, 0u);
#if LEFT_OUT
                    there_tile[to] = is ? 0xffffffff : 0;
#endif
                }
            }
        }
        next += DEPTH;
        next_w += DEPTH * padded_rows;
    };
    // The differences in `count` words. Two columns at a time: more of their words would need too many registers.
    auto compare = [&](int which, int k, auto count) {
        constexpr int many = decltype(count)::words;
        uint32_t left[many][ROWS];
#pragma unroll
        for (int n = 0; n < many; n++)
            four(left[n], &w_tile[(which * DEPTH + k + n) * TILE_ROWS + ROW(0)]);
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 2) {
            uint32_t right[many][2];
#if LEFT_OUT
            uint32_t is_there[many][2];
#endif
#pragma unroll
            for (int n = 0; n < many; n++) {
                two(right[n], &x_tile[PLACE(which, k + n, COLUMN(j))]);
#if LEFT_OUT
                two(is_there[n], &there_tile[PLACE(which, k + n, COLUMN(j))]);
#endif
            }
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int column = 0; column < 2; column++) {
                    uint32_t d[many];
#pragma unroll
                    for (int n = 0; n < many; n++)
#if LEFT_OUT
                        d[n] = (left[n][i] ^ right[n][column]) & is_there[n][column];
#else
                        d[n] = left[n][i] ^ right[n][column];
#endif
                    differ[i][j + column] += many == 8 ? bits_of_eight(d) : __popc(d[0]);
                }
        }
    };
    struct One { enum { words = 1 }; };
    struct Eight { enum { words = 8 }; };

    if (thread == 0)
        end_position = first_position, end_row = first_row, end_group = group, end_split = split;
    load(0);
    copies_arrive();
    __syncthreads();
    int which = 0;
#pragma unroll 1
    for (int left = whole_tiles; left; left--) {
        load(which ^ 1);
        compare(which, 0, Eight());
        which ^= 1;
        copies_arrive();
        __syncthreads();
    }
    // The last tile may be a part of one: few words are counted one by one.
    const int rest = last_word - first_word - whole_tiles * DEPTH;
    if (rest > 4)
        compare(which, 0, Eight());
    else
#pragma unroll 1
        for (int k = 0; k < rest; k++)
            compare(which, k, One());

    result += end_split * partial_step;
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        const int position = end_position + COLUMN(j);
        const int image = position / length, pixel = position % length, line = pixel / across;
        const int z = DEEP ? line / down : 0, y = DEEP ? line % down : line, column = pixel % across;
        const int at = image * r_image + end_group * r_group + z * r_plane + y * r_row + column * r_column;
        int signs_there = end_split ? 0 : terms;
        if (LEFT_OUT && !end_split)
            signs_there = channels * taps_inside(column * stride_x - before_x, width, dilation_x, kernel_x) *
                          taps_inside(y * stride_y - before_y, height, dilation_y, kernel_y) *
                          (DEEP ? taps_inside(z * stride_z - before_z, depth, dilation_z, kernel_z) : 1);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            differ[i][j] = signs_there - 2 * differ[i][j];
        if (position < positions && !(FOURS && j % 4 != 3))
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const int row = end_row + ROW(i);
                if (row < rows) {
                    RESULT *to = result + at + row * r_filter;
                    if (FOURS) {
                        Four<RESULT> all;
#pragma unroll
                        for (int n = 0; n < 4; n++)
                            all.at[n] = (RESULT)differ[i][j / 4 * 4 + n];
                        *(Four<RESULT> *)(to - 3) = all;
                    } else
                        *to = (RESULT)differ[i][j];
                }
            }
    }
}
