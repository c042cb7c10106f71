// The signs of an image's columns, packed into words: words[group][word][position], whose bit i is that of term
// 32 * word + i, and 0 where its tap leads out of the image. inside[word][position] has 1 where it doesn't, for the
// positions of one image: they are the same in all. The text before this one defines DEEP and tile.cu's taps, and
//   ELEMENT, IS_PLUS(v)    the type of operands, and how signs are told
//   LEFT_OUT               1: taps may lead out of the image

// taps: of each term, as in gather.cu. Of positions and x: as there.
extern "C" __global__ void __launch_bounds__(256)
pack_columns(const ELEMENT *x, uint32_t *words, uint32_t *inside, const int2 *taps, int terms, int count,
             int positions, int length, int down, int across, int depth, int height, int width,
             int stride_z, int stride_y, int stride_x, int before_z, int before_y, int before_x,
             int x_image, int x_group, int x_plane, int x_row, int x_column)
{
    const int tiles = (positions + 255) / 256, turn = blockIdx.x / tiles, word = turn % count, group = turn / count;
    const int position = blockIdx.x % tiles * 256 + threadIdx.x;
    if (position >= positions)
        return;
    const int image = position / length, pixel = position % length, line = pixel / across;
    const int front = DEEP ? line / down * stride_z - before_z : 0;
    const int top = (DEEP ? line % down : line) * stride_y - before_y, left = pixel % across * stride_x - before_x;
    const int origin = image * x_image + group * x_group + front * x_plane + top * x_row + left * x_column;
    const int rest = min(32, terms - 32 * word);
    uint32_t signs = 0, there = 0;

    taps += 32 * word;
#pragma unroll 8
    for (int i = 0; i < rest; i++) {
        const int2 tap = taps[i];
        const bool is = !LEFT_OUT || (!DEEP || (unsigned)(front + tap_plane(tap.y)) < (unsigned)depth) &&
                                         (unsigned)(top + tap_row(tap.y)) < (unsigned)height &&
                                         (unsigned)(left + tap_column(tap.y)) < (unsigned)width;
        if (is)
            signs |= (uint32_t)(IS_PLUS(x[origin + tap.x])) << i;
        there |= (uint32_t)is << i;
    }
    words[((long long)group * count + word) * positions + position] = signs;
#if LEFT_OUT
    if (group == 0 && image == 0)
        inside[word * length + pixel] = there;
#endif
}
