// A block's tile of results, and elements on their way to shared memory. The text before this one defines
//   TILE_ROWS, TILE_COLUMNS         a block's results
//   ROWS, COLUMNS                   a thread's: multiples of 4
//   VALUE, ELEMENT, OF_ELEMENT(v)   the type of tiles; that of operands in memory, and how it becomes a VALUE
#define LANES_Y (TILE_ROWS / ROWS)
#define LANES_X (TILE_COLUMNS / COLUMNS)
#define THREADS (LANES_Y * LANES_X)
// A warp is 4 by 8 threads if it can, so that it reads few and whole lines of shared memory.
#define WARP_Y (LANES_Y < 4 ? LANES_Y : LANES_X < 8 ? 32 / LANES_X : 4)
#define WARP_X (32 / WARP_Y)
#define WARPS_X (LANES_X / WARP_X)
OP_FUNCTION int lane_row(int thread) { return thread / 32 / WARPS_X * WARP_Y + thread % 32 / WARP_X; }
OP_FUNCTION int lane_column(int thread) { return thread / 32 % WARPS_X * WARP_X + thread % 32 % WARP_X; }
// A thread's results are fours of rows and of columns, spread over the tile.
#define ROW(i) ((i) / 4 * (TILE_ROWS / (ROWS / 4)) + 4 * lane_y + (i) % 4)
#define COLUMN(j) ((j) / 4 * (TILE_COLUMNS / (COLUMNS / 4)) + 4 * lane_x + (j) % 4)

// Puts elements side by side, or `other` where there are none, into shared memory.
template <int count, class T> OP_FUNCTION void take_value(T *to, const T *from, bool is, T other)
{
    if (is && count * sizeof(T) > 16)
        copy<16>(to, from), copy<16>(to + count / 2, from + count / 2);
    else if (is)
        copy<count * sizeof(T) <= 16 ? count * sizeof(T) : 16>(to, from);
    else
#pragma unroll
        for (int i = 0; i < count; i++)
            to[i] = other;
}
template <int count> OP_FUNCTION void take(VALUE *to, const ELEMENT *from, bool is, VALUE other)
{
    if (sizeof(ELEMENT) == sizeof(VALUE))
        take_value<count, VALUE>(to, (const VALUE *)from, is, other);
    else
#pragma unroll
        for (int i = 0; i < count; i++)
            to[i] = is ? (VALUE)OF_ELEMENT(from[i]) : other;
}

// Four numbers side by side, as shared memory is read.
template <class T> struct __align__(16) Four { T at[4]; };
template <class T> OP_FUNCTION void four(T *to, const T *from)
{
    const Four<T> all = *(const Four<T> *)from;
#pragma unroll
    for (int n = 0; n < 4; n++)
        to[n] = all.at[n];
}
// The bytes that say what is in the image: four of them, and whether the j-th of such fours is set.
OP_FUNCTION unsigned four_marks(const unsigned char *from) { return *(const unsigned *)from; }
OP_FUNCTION bool is_marked(const unsigned *fours, int j) { return fours[j / 4] >> (j % 4 * 8) & 1; }
