/* exp and log as plain arithmetic, which becomes vectors without calls: a call would cost all registers. Part of
 * the template, after dot_level.h.
 *
 * exp(x) is for x <= 0, right to two units in the last place, three of the very small ones; 0 stands for what is below
 * the least normal number. x is n log 2 + rest. So exp(x) is a polynomial of the rest, with the least greatest error of
 * its degree, times 2 to the n. Adding `far` leaves no bits for fractions: it rounds, and the last bits of the sum are
 * the exponent of a power of 2. Log 2 comes in two parts; n times the first is exact. A fused multiply-add of floats is
 * so by itself.
 *
 * log(x) is for x >= 1, 0 and what is no number, right to three units in the last place. x is a number from sqrt(1/2) to
 * sqrt(2), times 2 to the n; the number's logarithm is the series of atanh. */
#define TIMES_PLUS(fma, a, b, c) (FUSED ? fma(a, b, c) : (a) * (b) + (c))
#define FLOAT(a, b, c) TIMES_PLUS(__builtin_fmaf, a, b, c)
#define DOUBLE(a, b, c) TIMES_PLUS(__builtin_fma, a, b, c)

INLINE float exp_float(float x)
{
    const float least = -88.0296919f, far = 0x1.8p23f + 127, near = x < least ? least : x;
    const float sum = FLOAT(near, 1.44269504f, far), n = sum - far;
    const float rest = FUSED ? __builtin_fmaf(n, -0x1.62e43p-1f, near) : near - n * 0x1.63p-1f + n * 0x1.bd0106p-13f;
    float result = 0x1.106278p-7f, power;
    uint32_t bits;

    result = FLOAT(result, rest, 0x1.572a06p-5f);
    result = FLOAT(result, rest, 0x1.5557aep-3f);
    result = FLOAT(result, rest, 0x1.fffdfcp-2f);
    result = FLOAT(result, rest, 1.0f);
    result = FLOAT(result, rest, 1.0f);
    __builtin_memcpy(&bits, &sum, sizeof bits);
    bits <<= 23;
    __builtin_memcpy(&power, &bits, sizeof bits);
    return result * power;
}

INLINE float log_float(float x)
{
    const float far = 0x1.8p23f;
    uint32_t bits, exponent;
    float number, sum, part, square, series = 2 / 9.0f, result;

    __builtin_memcpy(&bits, &x, sizeof bits);
    exponent = (bits - 0x3f3504f3) >> 23;
    bits -= exponent << 23;
    __builtin_memcpy(&number, &bits, sizeof bits);
    exponent += 0x4b400000; /* the bits of far */
    __builtin_memcpy(&sum, &exponent, sizeof exponent);
    part = (number - 1) / (number + 1);
    square = part * part;
    series = FLOAT(series, square, 2 / 7.0f);
    series = FLOAT(series, square, 2 / 5.0f);
    series = FLOAT(series, square, 2 / 3.0f);
    series = FLOAT(series, square, 2.0f);
    result = FLOAT(sum - far, 0x1.62e43p-1f, series * part);
    return x - x != 0 ? x : x == 0 ? -INFINITY : result;
}

INLINE double exp_double(double x)
{
    const double least = -709.0895657128241, far = 0x1.8p52 + 1023, near = x < least ? least : x;
    const double sum = DOUBLE(near, 1.4426950408889634, far), n = sum - far;
    const double rest = DOUBLE(n, -0x1.a39ef35793c76p-33, DOUBLE(n, -0x1.62e42feep-1, near));
    double result = 0x1.270798b6398f9p-22, power;
    uint64_t bits;

    result = DOUBLE(result, rest, 0x1.72e92847816d6p-19);
    result = DOUBLE(result, rest, 0x1.a01b7c77b67d8p-16);
    result = DOUBLE(result, rest, 0x1.a0198d4cc57fep-13);
    result = DOUBLE(result, rest, 0x1.6c16c0c817e37p-10);
    result = DOUBLE(result, rest, 0x1.11111125b6f7fp-7);
    result = DOUBLE(result, rest, 0x1.555555558916ap-5);
    result = DOUBLE(result, rest, 0x1.55555555507b6p-3);
    result = DOUBLE(result, rest, 0x1.ffffffffffed2p-2);
    result = DOUBLE(result, rest, 1.0);
    result = DOUBLE(result, rest, 1.0);
    __builtin_memcpy(&bits, &sum, sizeof bits);
    bits <<= 52;
    __builtin_memcpy(&power, &bits, sizeof bits);
    return result * power;
}

INLINE double log_double(double x)
{
    const double far = 0x1.8p52;
    uint64_t bits, exponent;
    double number, sum, part, square, series = 2 / 21.0, result;

    __builtin_memcpy(&bits, &x, sizeof bits);
    exponent = (bits - 0x3fe6a09e667f3bcd) >> 52;
    bits -= exponent << 52;
    __builtin_memcpy(&number, &bits, sizeof bits);
    exponent += 0x4338000000000000; /* the bits of far */
    __builtin_memcpy(&sum, &exponent, sizeof exponent);
    part = (number - 1) / (number + 1);
    square = part * part;
    series = DOUBLE(series, square, 2 / 19.0);
    series = DOUBLE(series, square, 2 / 17.0);
    series = DOUBLE(series, square, 2 / 15.0);
    series = DOUBLE(series, square, 2 / 13.0);
    series = DOUBLE(series, square, 2 / 11.0);
    series = DOUBLE(series, square, 2 / 9.0);
    series = DOUBLE(series, square, 2 / 7.0);
    series = DOUBLE(series, square, 2 / 5.0);
    series = DOUBLE(series, square, 2 / 3.0);
    series = DOUBLE(series, square, 2.0);
    result = DOUBLE(sum - far, 0x1.62e42fefa39efp-1, series * part);
    return x - x != 0 ? x : x == 0 ? -(double)INFINITY : result;
}
#undef DOUBLE
#undef FLOAT
#undef TIMES_PLUS
