// The signs of rows, packed into words: words[group][word][row], whose bit i is that of element order[32 * word + i]
// of the row, and 0 where that is -1. The text before this one defines ELEMENT, the type of operands, and IS_PLUS(v).
#define WARPS 8

// A warp takes a word of 32 rows: its threads read the elements of one word, which are neighbours as a rule.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
pack_rows(const ELEMENT *values, uint32_t *words, const int *order, int rows, int padded_rows, int count, int row_step,
          int group_step)
{
    const int lane = threadIdx.x % 32, row_tiles = (padded_rows + 31) / 32, word_tiles = (count + WARPS - 1) / WARPS;
    const int first = blockIdx.x % row_tiles * 32, turn = blockIdx.x / row_tiles, group = turn / word_tiles;
    const int word = turn % word_tiles * WARPS + threadIdx.x / 32;
    const int at = word < count ? order[32 * word + lane] : -1;
    uint32_t mine = 0;

    for (int i = 0; i < 32; i++) {
        bool is = false;
        if (at >= 0 && first + i < rows)
            is = IS_PLUS(values[group * group_step + (first + i) * row_step + at]);
        const uint32_t all = __ballot_sync(0xffffffff, is);
        mine = i == lane ? all : mine;
    }
    if (word < count && first + lane < padded_rows)
        words[((long long)group * count + word) * padded_rows + first + lane] = mine;
}
