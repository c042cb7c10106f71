// Packed weights. The text before this one defines VALUE, ELEMENT and OF_ELEMENT, as gather.cu has them.

// packed[group][k][plane][row] of one plane of weights[group][row][k], padded with zeros. order: which of a row's elements
// k is.
extern "C" __global__ void __launch_bounds__(256)
pack(const ELEMENT *weights, VALUE *packed, const int *order, int planes, int plane, int rows, int terms, int padded_rows,
     int padded_terms, int row_step, int group_step)
{
    const int at = blockIdx.x * 256 + threadIdx.x, group = blockIdx.y;
    const int k = at / padded_rows, row = at % padded_rows;
    if (k < padded_terms)
        packed[(((long long)group * padded_terms + k) * planes + plane) * padded_rows + row] =
            k < terms && row < rows ? OF_ELEMENT(weights[group * group_step + row * row_step + order[k]]) : (VALUE)0;
}
