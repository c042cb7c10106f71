/* Positions as segments. */
#include "dot_segments.h"

int dot_list_segments(const struct dot_problem *p, int64_t start, int64_t count, struct segment *segments)
{
    const int64_t columns = p->blocks[2], rows = start / columns, planes = rows / p->blocks[1];
    int64_t image = planes / p->blocks[0], plane = planes % p->blocks[0], row = rows % p->blocks[1];
    int64_t column = start % columns;
    int n = 0;
    int32_t lane = 0;

    while (lane < count) {
        const int32_t step = (int32_t)smaller(count - lane, columns - column);
        segments[n++] = (struct segment){
            lane,
            step,
            image,
            plane * p->y_strides[2] + row * p->y_strides[3] + column * p->y_strides[4],
            plane * p->stride[0] - p->before[0],
            row * p->stride[1] - p->before[1],
            column * p->stride[2] - p->before[2],
        };
        lane += step;
        column = 0;
        if (++row == p->blocks[1]) {
            row = 0;
            if (++plane == p->blocks[0])
                plane = 0, image++;
        }
    }
    return n;
}
