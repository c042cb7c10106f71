// Packed weights: packed[group][k][plane][row] of one plane of weights[group][row][k], padded with zeros. The text
// before this one defines VALUE, ELEMENT and OF_ELEMENT, as gather.cu has them.
#define SIDE 32
#define LINES 8

// order: which of a row's elements k is. A block takes SIDE by SIDE of them: neighbours read neighbouring k, and write
// neighbouring rows.
extern "C" __global__ void __launch_bounds__(SIDE *LINES)
pack(const ELEMENT *weights, VALUE *packed, const int *order, int planes, int plane, int rows, int terms,
     int padded_rows, int padded_terms, int row_step, int group_step)
{
    __shared__ VALUE tile[SIDE][SIDE + 1];
    const int across = threadIdx.x % SIDE, down = threadIdx.x / SIDE;
    const int row_tiles = (padded_rows + SIDE - 1) / SIDE, term_tiles = (padded_terms + SIDE - 1) / SIDE;
    const int first_row = blockIdx.x % row_tiles * SIDE, turn = blockIdx.x / row_tiles;
    const int first_term = turn % term_tiles * SIDE, group = turn / term_tiles;

    for (int i = down; i < SIDE; i += LINES) {
        const int row = first_row + i, k = first_term + across;
        tile[i][across] = 0;
        if (k < terms && row < rows)
            tile[i][across] = OF_ELEMENT(weights[group * group_step + row * row_step + order[k]]);
    }
    __syncthreads();
    for (int i = down; i < SIDE; i += LINES) {
        const int row = first_row + across, k = first_term + i;
        if (k < padded_terms && row < padded_rows)
            packed[(((long long)group * padded_terms + k) * planes + plane) * padded_rows + row] = tile[across][i];
    }
}
