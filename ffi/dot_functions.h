/* Functions of the C library as plain arithmetic without branches, which becomes vectors inside a loop over lanes: a
 * call would cost all registers. Part of the template, after dot_level.h. What isn't called costs nothing.
 *
 * Each is right to two units in the last place, pow to four, whether or not there is a fused multiply-add, and has the
 * C library's NaN, infinities, zeros and denormal numbers; docs/accuracy.md has what was measured. Polynomials have
 * the least greatest error of their degree.
 *
 * FLOAT and DOUBLE are multiply-adds, fused where there are such. Adding `far` leaves no bits for fractions: it rounds,
 * and the last bits of the sum are the integer. Constants that come in parts are the first parts, so that products are
 * exact, and what is missing. */
#define TIMES_PLUS(fma, a, b, c) (FUSED ? fma(a, b, c) : (a) * (b) + (c))
#define FLOAT(a, b, c) TIMES_PLUS(__builtin_fmaf, a, b, c)
#define DOUBLE(a, b, c) TIMES_PLUS(__builtin_fma, a, b, c)

INLINE uint32_t bits_of_float(float v)
{
    uint32_t bits;

    __builtin_memcpy(&bits, &v, sizeof bits);
    return bits;
}

INLINE float float_of_bits(uint32_t bits)
{
    float v;

    __builtin_memcpy(&v, &bits, sizeof v);
    return v;
}

INLINE uint64_t bits_of_double(double v)
{
    uint64_t bits;

    __builtin_memcpy(&bits, &v, sizeof bits);
    return bits;
}

INLINE double double_of_bits(uint64_t bits)
{
    double v;

    __builtin_memcpy(&v, &bits, sizeof v);
    return v;
}

/* v, but `most` at most, which isn't negative. As integers: of floats the compiler would make branches, and with NaN a
 * minimum isn't one instruction. NaN is lost. */
INLINE float most_float(float v, float most)
{
    const int32_t a = (int32_t)bits_of_float(v), b = (int32_t)bits_of_float(most);

    return float_of_bits((uint32_t)(a < b ? a : b));
}

/* condition ? a : b, of which the compiler can't make branches: it joins the conditions of many to what is no
 * vector, and makes none of one that is the same for all lanes. */
INLINE float chosen_float(int condition, float a, float b)
{
    const uint32_t mask = 0 - (uint32_t)condition;

    return float_of_bits((bits_of_float(a) & mask) | (bits_of_float(b) & ~mask));
}

INLINE double chosen_double(int condition, double a, double b)
{
    /* Chosen as a double, since SSE2 compares no integers of 64 bits. */
    const uint64_t mask = bits_of_double(condition ? double_of_bits(~(uint64_t)0) : 0);

    return double_of_bits((bits_of_double(a) & mask) | (bits_of_double(b) & ~mask));
}

/* ------------------------------------------------------------------------------------------------ float: exponentials
 *
 * x is n log 2 + rest: exp(x) is a polynomial of the rest, times 2 to the n. */

/* What is left of x, |n| <= 150, where `far` was added to x / log 2. */
INLINE float rest_float(float x, float n)
{
    if (FUSED)
        return __builtin_fmaf(n, 0x1.05c61p-29f, __builtin_fmaf(n, -0x1.62e43p-1f, x));
    return x - n * 0x1.62p-1f - n * 0x1.c84p-10f - n * 0x1.fdf474p-22f;
}

#define HALVES_FLOAT (0x1.8p23f + 254)

/* v times 2 to the n; sum is n + HALVES_FLOAT. Times one half of n and then the other, so that the result is
 * denormal or infinite where it should be. */
INLINE float scaled_float(float v, float sum)
{
    const uint32_t both = bits_of_float(sum), half = both >> 1;

    return v * float_of_bits(half << 23) * float_of_bits((both - half) << 23);
}

/* exp(rest) - 1, for those who add it to 1. One step after the other takes the fewest registers; what is computed
 * meanwhile is another vector's. */
INLINE float exp_less_one_float(float rest)
{
    float result = FLOAT(rest, 0x1.6ab6cp-10f, 0x1.123d5cp-7f);

    result = FLOAT(result, rest, 0x1.55585ap-5f);
    result = FLOAT(result, rest, 0x1.55548cp-3f);
    result = FLOAT(result, rest, 0x1.fffffcp-2f);
    return FLOAT(result, rest * rest, rest);
}

/* The last bits of sum = n + far are those of n + 127, 64 more or 64 less. So that the result is denormal or infinite
 * where it should be, it is computed 2 to the 64 times as large, or as small. */
INLINE float exp_of_float(float x, float far, float back)
{
    const float sum = FLOAT(x, 1.44269504f, far), power = float_of_bits(bits_of_float(sum) << 23);

    return FLOAT(exp_less_one_float(rest_float(x, sum - far)), power, power) * back;
}

INLINE float exp_float(float x)
{
    const int below = (int32_t)bits_of_float(x) < 0;
    const float near = x > 89.0f ? 89.0f : x;
    const float result = exp_of_float(near, below ? 0x1.8p23f + 191 : 0x1.8p23f + 63, below ? 0x1p-64f : 0x1p64f);

    return x < -104.0f ? 0 : result;
}

/* exp(x) for x <= 0. */
INLINE float exp_below_float(float x)
{
    const float result = exp_of_float(x, 0x1.8p23f + 191, 0x1p-64f);

    return x < -104.0f ? 0 : result;
}

/* exp(x) for -87 < x < 88; what is lost by a reduction in one part is for those who add the result to 1. */
INLINE float exp_beside_one_float(float x)
{
    const float far = 0x1.8p23f + 127, sum = FLOAT(x, 1.44269504f, far), n = sum - far;
    const float rest = FUSED ? __builtin_fmaf(n, -0x1.62e43p-1f, x) : x - n * 0x1.63p-1f + n * 0x1.bd0106p-13f;
    const float power = float_of_bits(bits_of_float(sum) << 23);

    return FLOAT(exp_less_one_float(rest), power, power);
}

INLINE float exp2_of_rest_float(float rest)
{
    const float square = rest * rest;
    const float high = FLOAT(rest, 0x1.41d29cp-13f, 0x1.5f464ep-10f);
    const float middle = FLOAT(rest, 0x1.3b2dbep-7f, 0x1.c6aed2p-5f);
    const float result = FLOAT(FLOAT(high, square, middle), rest, 0x1.ebfbdap-3f);

    return FLOAT(result, square, rest * 0x1.62e43p-1f) + 1;
}

INLINE float exp2_float(float x)
{
    const float sum = most_float(x + HALVES_FLOAT, HALVES_FLOAT + 129);

    return x < -151.0f ? 0 : scaled_float(exp2_of_rest_float(x - (sum - HALVES_FLOAT)), sum);
}

/* exp(rest) - 1 is p. What is small is a part of the result for itself. */
INLINE float expm1_float(float x)
{
    const float far = 0x1.8p23f + 126, sum = most_float(FLOAT(x, 1.44269504f, far), far + 128);
    const float rest = rest_float(x, sum - far), square = rest * rest;
    const float half = float_of_bits(bits_of_float(sum) << 23); /* of 2 to the n */
    const float high = FLOAT(rest, 0x1.9c50dep-13f, 0x1.6d4c12p-10f);
    const float middle = FLOAT(rest, 0x1.1113acp-7f, 0x1.5554eap-5f);
    const float result = FLOAT(FLOAT(high, square, middle), square, FLOAT(rest, 0x1.555554p-3f, 0.5f));
    const float p = 2 * FLOAT(half, FLOAT(result, square, rest), half - 0.5f);

    return chosen_float(x < -18.0f, -1, __builtin_fabsf(x) < 0x1p-30f ? x : p);
}

INLINE float sigmoid_float(float x)
{
    const float e = exp_below_float(-__builtin_fabsf(x)), q = e / (1 + e);

    return x < 0 ? FLOAT(-e, q, e) : 1 - q;
}

/* exp(2 |x|) - 1, over 2 more. */
INLINE float tanh_float(float x)
{
    const float absolute = __builtin_fabsf(x), square = x * x, far = 0x1.8p23f + 127;
    float near = absolute > 10.0f ? 10.0f : absolute;
    /* The product is exact up to 8; beyond that the result is nearly 1. */
    const float sum = FLOAT(near, 2.88539008f, far), n = sum - far, rest = FLOAT(n, -0x1.62e43p-2f, near);
    const float power = float_of_bits(bits_of_float(sum) << 23);
    float result = FLOAT(rest, 0x1.6bebdep-4f, 0x1.122886p-2f), half, less_one;

    result = FLOAT(result, rest, 0x1.555676p-1f);
    result = FLOAT(result, rest, 0x1.5554aep0f);
    result = FLOAT(result, rest, 0x1.fffffep0f);
    less_one = FLOAT(FLOAT(result, rest * rest, rest + rest), power, power - 1);
    half = 0.5f * less_one;
    result = less_one / (less_one + 2);
    if (FUSED) {
        /* It is half - half * result, too, with less to be rounded where that is small. */
        near = FLOAT(-half, result, half);
    } else {
        const float high = square * -0x1.6968fap-8f + 0x1.4f5d36p-6f, middle = square * -0x1.b7cfb2p-5f + 0x1.1103fp-3f;

        near = ((high * (square * square) + middle) * square + -0x1.555524p-2f) * square * absolute + absolute;
    }
    return __builtin_copysignf(less_one < 1 ? near : result, x);
}

/* 1 - exp(of a polynomial), and the series where that is small. */
INLINE float erf_float(float x)
{
    const float absolute = __builtin_fabsf(x), t = most_float(absolute, 4.0f), square = x * x;
    float high = FLOAT(FLOAT(t, -0x1.22p-16f, 0x1.91cfb2p-12f), t * t, FLOAT(t, -0x1.fd1438p-9f, 0x1.8d6342p-6f));
    float result = FLOAT(FLOAT(square, -0x1.38ep-11f, 0x1.471a58p-8f), square, -0x1.b691b2p-6f);

    high = FLOAT(high, t, -0x1.b55cb8p-4f);
    high = FLOAT(high, t, -0x1.450aap-1f);
    high = FLOAT(high, t, -0x1.079d0cp-3f);
    high = 1 - exp_beside_one_float(FLOAT(high, t, -t));
    result = FLOAT(result, square, 0x1.ce1c44p-4f);
    result = FLOAT(result, square, -0x1.8127p-2f);
    result = FLOAT(result, square, 0x1.06eba8p-3f);
    return absolute > 0.927734375f ? __builtin_copysignf(high, x) : FLOAT(result, x, x);
}

/* ------------------------------------------------------------------------------------------------ float: logarithms
 *
 * x is 1 + near, a number from 2/3 to 4/3, times 2 to the n. */

/* log(1 + near) + n log 2; scaled is 2 to the 23 n. */
INLINE float log_of_float(float near, float scaled)
{
    const float square = near * near;
    const float highest = FLOAT(near, -0x1.08057cp-3f, 0x1.1e6674p-3f);
    const float high = FLOAT(near, -0x1.f3114p-4f, 0x1.1ed726p-3f);
    const float middle = FLOAT(near, -0x1.559dccp-3f, 0x1.99d028p-3f);
    const float low = FLOAT(near, -0x1.fffefp-3f, 0x1.555506p-2f);
    const float result = FLOAT(FLOAT(highest, square, high), square, middle);

    return FLOAT(scaled, 0x1.62e43p-24f, FLOAT(FLOAT(FLOAT(result, square, low), near, -0.5f), square, near));
}

/* The logarithm of x, where `result` is right for finite positive numbers. */
INLINE float log_where_float(float x, float result)
{
    const float finite = x < INFINITY ? result : x, other = x == 0 ? -INFINITY : NAN;

    return chosen_float(x > 0, finite, other);
}

/* x as near and n; *scaled is 2 to the 23 n. By masks: of choices gcc makes branches, and no vectors where they are the
 * same for all lanes. */
INLINE float near_float(float x, float *scaled)
{
    const uint32_t tiny = 0 - (uint32_t)(x < 0x1p-126f);
    /* x or x times 2 to the 23 */
    const uint32_t bits = bits_of_float(x * float_of_bits(0x3f800000 + (tiny & 0x0b800000)));
    const uint32_t exponent = (bits - 0x3f2aaaab) & 0xff800000;

    *scaled = (float)(int32_t)exponent - float_of_bits(tiny & 0x4d380000);
    return float_of_bits(bits - exponent) - 1;
}

INLINE float log_float(float x)
{
    float scaled, near = near_float(x, &scaled);

    return log_where_float(x, log_of_float(near, scaled));
}

INLINE float log2_float(float x)
{
    float scaled, near = near_float(x, &scaled), square = near * near;
    const float highest = FLOAT(near, -0x1.80adc4p-3f, 0x1.a03b56p-3f);
    const float high = FLOAT(near, -0x1.66f024p-3f, 0x1.9d144p-3f);
    const float middle = FLOAT(near, -0x1.ecf404p-3f, 0x1.27a5c6p-2f);
    const float low = FLOAT(near, -0x1.715328p-2f, 0x1.ec6ff4p-2f);
    const float result = FLOAT(FLOAT(FLOAT(highest, square, high), square, middle), square, low);
    const float part = FLOAT(FLOAT(result, near, -0x1.715478p-1f), square, near * 0x1.c551dap-2f);

    return log_where_float(x, FLOAT(scaled, 0x1p-23f, near + part));
}

INLINE float log1p_float(float x)
{
    const float whole = 1 + x;
    const uint32_t exponent = (bits_of_float(whole) - 0x3f2aaaab) & 0xff800000;
    const float unit = float_of_bits(0x40800000 - exponent); /* 4 over 2 to the n */
    const float near = float_of_bits(bits_of_float(x) - exponent) + FLOAT(0.25f, unit, -1.0f);
    const float result = log_of_float(near, (float)(int32_t)exponent);

    return __builtin_fabsf(x) < 0x1p-30f ? x : log_where_float(whole, result);
}

/* ------------------------------------------------------------------------------------------------ float: of two
 * numbers */

INLINE float hypot_float(float x, float y)
{
    const float a = __builtin_fabsf(x), b = __builtin_fabsf(y), more = a < b ? b : a;
    const float scale = more > 0x1p60f ? 0x1p-70f : more < 0x1p-60f ? 0x1p90f : 1;
    const float back = more > 0x1p60f ? 0x1p70f : more < 0x1p-60f ? 0x1p-90f : 1;
    const float u = a * scale, v = b * scale;

    return ((a == INFINITY) | (b == INFINITY)) ? INFINITY : __builtin_sqrtf(FLOAT(u, u, v * v)) * back;
}

/* The arctangent of the lesser over the greater, 1 at most, to or from a multiple of pi/2. */
INLINE float atan2_float(float y, float x)
{
    const float a = __builtin_fabsf(y), b = __builtin_fabsf(x), less = a < b ? a : b, more = a < b ? b : a;
    const float ratio = ((less == more) & (less == INFINITY)) ? 1 : less / (more == 0 ? 1 : more);
    const float square = ratio * ratio;
    const int left = (bits_of_float(x) >> 31) != 0, steep = a > b;
    float result = FLOAT(square, 0x1.7eae5ep-9f, -0x1.0c1a7ep-6f);

    result = FLOAT(result, square, 0x1.61eff8p-5f);
    result = FLOAT(result, square, -0x1.35511ap-4f);
    result = FLOAT(result, square, 0x1.b4deb8p-4f);
    result = FLOAT(result, square, -0x1.230a94p-3f);
    result = FLOAT(result, square, 0x1.9978ecp-3f);
    result = FLOAT(result, square, -0x1.5554dcp-2f);
    result = FLOAT(result * square, ratio, ratio);
    result = left != steep ? -result : result;
    result = steep ? 0x1.921fb6p0f + (result - 0x1.777a5cp-25f) : left ? 0x1.921fb6p1f +
        (result - 0x1.777a5cp-24f) : result;
    return x != x ? x : __builtin_copysignf(result, y);
}

/* ------------------------------------------------------------------------------------------------ float: sine, cosine
 *
 * x is n pi/2 + rest, for |x| <= 8192: for others the package has kernels that call the C library. */

INLINE float sine_float(float rest)
{
    const float square = rest * rest;
    const float result = FLOAT(FLOAT(square, -0x1.991c28p-13f, 0x1.1106c6p-7f), square, -0x1.555544p-3f);

    return FLOAT(result * square, rest, rest);
}

INLINE float cosine_float(float rest)
{
    const float square = rest * rest;
    const float result = FLOAT(FLOAT(square, 0x1.99e714p-16f, -0x1.6c0c26p-10f), square, 0x1.55554ap-5f);

    return FLOAT(result, square * square, FLOAT(square, -0.5f, 1.0f));
}

/* The sine of x + turn pi/2. */
INLINE float turned_float(float x, uint32_t turn)
{
    const float sum = FLOAT(x, 0x1.45f306p-1f, 0x1.8p23f), n = sum - 0x1.8p23f;
    /* Without fused multiply-adds: both are used there alone. */
    const float second = x - n * 0x1.92p0f - n * 0x1.fb4p-12f, third = second - n * 0x1.444p-24f;
    const uint32_t quarter = bits_of_float(sum) + turn;
    float rest, result;

    if (FUSED)
        rest = __builtin_fmaf(n, 0x1.ee59dap-50f, __builtin_fmaf(n, 0x1.777a5cp-25f, __builtin_fmaf(n,
            -0x1.921fb6p0f, x)));
    else
        rest = third - (n * 0x1.68c234p-39f - (second - third - n * 0x1.444p-24f));
    result = quarter & 1 ? cosine_float(rest) : sine_float(rest);
    return float_of_bits(bits_of_float(result) ^ (quarter & 2) << 30);
}

INLINE float sin_float(float x) { return x == 0 ? x : turned_float(x, 0); }

INLINE float cos_float(float x) { return turned_float(x, 1); }

/* ------------------------------------------------------------------------------------------------ float: powers
 *
 * The logarithm, to base 2, and its product with y are doubles. */

INLINE float pow_float(float x, float y)
{
    const float absolute = __builtin_fabsf(x);
    const float large = most_float(__builtin_fabsf(y), 0x1p24f), half = 0.5f * large; /* beyond that, all are even */
    /* Adding `far` rounds. Not to an integer and back: gcc has a call for that, and makes no vectors of a branch with
     * one. */
    const float far = 0x1p23f;
    const int whole = (large >= far) | (large + far - far == large), odd = half + far - far != half;
    const uint32_t left = bits_of_float(x) & 0x80000000;
    float scaled, near = near_float(absolute, &scaled), rough, result, sum;
    const double v = near;
    double low, high, product;

    low = DOUBLE(DOUBLE(-0x1.5396ed797p-3, v, 0x1.689c2c279p-3), v * v, DOUBLE(-0x1.19b3b8c178p-3, v,
        0x1.3c0f70e749p-3));
    high = DOUBLE(DOUBLE(-0x1.7245465144p-3, v, 0x1.a6d178da67p-3), v * v, DOUBLE(-0x1.ec68bc216ep-3, v,
        0x1.27744d0f09p-2));
    low = DOUBLE(low, v * v * (v * v), high);
    low = DOUBLE(low, v * v, DOUBLE(-0x1.71548456a7cccp-2, v, 0x1.ec70a3dc09278p-2));
    low = DOUBLE(low, v * v, DOUBLE(-0x1.7154764ba8626p-1, v, 0x1.715476521caa8p+0));
    product = y * DOUBLE(low, v, scaled * 0x1p-23);
    rough = (float)product;
    sum = most_float(rough + HALVES_FLOAT, HALVES_FLOAT + 129);
    near = (float)(product - (sum - HALVES_FLOAT));
    result = scaled_float(exp2_of_rest_float(near), sum);
    result = chosen_float(rough < -151.0f, 0, result);
    result = chosen_float(absolute == 1, 1, result);
    result = chosen_float(absolute == 0, chosen_float(y > 0, 0, INFINITY), result);
    result = chosen_float(absolute == INFINITY, chosen_float(y > 0, INFINITY, 0), result);
    result = chosen_float((left != 0) & !whole & (absolute != 0) & (absolute < INFINITY), NAN, result);
    result = float_of_bits(bits_of_float(result) ^ (left & (0 - (uint32_t)(whole & odd))));
    result = chosen_float(x != x, x, chosen_float(y != y, y, result));
    return chosen_float((x == 1) | (y == 0), 1, result);
}

/* ------------------------------------------------------------------------------------------------ double, in the
 * same ways */

INLINE double rest_double(double x, double n)
{
    if (FUSED)
        return __builtin_fma(n, -0x1.abc9e3b39803fp-56, __builtin_fma(n, -0x1.62e42fefa39efp-1, x));
    return x - n * 0x1.62e42feep-1 - n * 0x1.a39ef35793c76p-33;
}

#define HALVES_DOUBLE (0x1.8p52 + 2046)

INLINE double scaled_double(double v, double sum)
{
    const uint64_t both = bits_of_double(sum), half = both >> 1;

    return v * double_of_bits(half << 52) * double_of_bits((both - half) << 52);
}

/* result, unless x is so small or so large that the result is another. */
INLINE double between_double(double x, double low, double of_low, double high, double of_high, double result)
{
    const double part = x < low ? of_low : result;

    return chosen_double(x > high, of_high, part);
}

INLINE double exp_of_rest_double(double rest)
{
    double result = DOUBLE(0x1.1e3cc251f5515p-29, rest, 0x1.af6c6151ce392p-26);
    result = DOUBLE(result, rest, 0x1.27e5b5030860ap-22);
    result = DOUBLE(result, rest, 0x1.71ddefdc4eff2p-19);
    result = DOUBLE(result, rest, 0x1.a01a0135f394bp-16);
    result = DOUBLE(result, rest, 0x1.a01a01b39922cp-13);
    result = DOUBLE(result, rest, 0x1.6c16c16c307a4p-10);
    result = DOUBLE(result, rest, 0x1.111111110ec19p-7);
    result = DOUBLE(result, rest, 0x1.5555555555502p-5);
    result = DOUBLE(result, rest, 0x1.555555555555bp-3);
    result = DOUBLE(result, rest, 0x1p-1);
    return DOUBLE(result, rest * rest, rest) + 1;
}

INLINE double exp_double(double x)
{
    const double sum = DOUBLE(x, 0x1.71547652b82fep0, HALVES_DOUBLE), rest = rest_double(x, sum - HALVES_DOUBLE);

    return between_double(x, -746, 0, 710, INFINITY, scaled_double(exp_of_rest_double(rest), sum));
}

INLINE double exp_below_double(double x)
{
    const double far = 0x1.8p52 + 1535, sum = DOUBLE(x, 0x1.71547652b82fep0, far), rest = rest_double(x, sum - far);
    const double result = exp_of_rest_double(rest) * double_of_bits(bits_of_double(sum) << 52) * 0x1p-512;

    return x < -746.0 ? 0 : result;
}

/* For -700 < x < 700. */
INLINE double exp_beside_one_double(double x)
{
    const double far = 0x1.8p52 + 1023, sum = DOUBLE(x, 0x1.71547652b82fep0, far), rest = rest_double(x, sum - far);

    return exp_of_rest_double(rest) * double_of_bits(bits_of_double(sum) << 52);
}

INLINE double exp2_double(double x)
{
    const double sum = x + HALVES_DOUBLE, rest = x - (sum - HALVES_DOUBLE);
    double result = DOUBLE(0x1.c6db655012a6bp-36, rest, 0x1.ea14cf0200c7ap-32);
    result = DOUBLE(result, rest, 0x1.e4cd9b94f87b7p-28);
    result = DOUBLE(result, rest, 0x1.b524d07921f5ep-24);
    result = DOUBLE(result, rest, 0x1.62c0229b080c6p-20);
    result = DOUBLE(result, rest, 0x1.ffcbfc7af92f2p-17);
    result = DOUBLE(result, rest, 0x1.430912f85968ep-13);
    result = DOUBLE(result, rest, 0x1.5d87fe78a125dp-10);
    result = DOUBLE(result, rest, 0x1.3b2ab6fba4ea8p-7);
    result = DOUBLE(result, rest, 0x1.c6b08d704a0d6p-5);
    result = DOUBLE(result, rest, 0x1.ebfbdff82c58fp-3);
    result = DOUBLE(result, rest, 0x1.62e42fefa39efp-1);
    return between_double(x, -1076, 0, 1025, INFINITY, scaled_double(result * rest + 1, sum));
}

INLINE double expm1_double(double x)
{
    const double far = 0x1.8p52 + 1022, sum = DOUBLE(x, 0x1.71547652b82fep0, far), n = sum - far;
    const double first = DOUBLE(n, -0x1.62e42feep-1, x), rest = DOUBLE(n, -0x1.a39ef35793c76p-33, first);
    const double lost = DOUBLE(n, -0x1.a39ef35793c76p-33, first - rest);
    const double half = double_of_bits(bits_of_double(sum) << 52);
    double result = DOUBLE(0x1.627e15ba7ff29p-33, rest, 0x1.1f8f3e01ae74ap-29);
    result = DOUBLE(result, rest, 0x1.ae63b6ae46750p-26);
    result = DOUBLE(result, rest, 0x1.27e4c9a94f0b7p-22);
    result = DOUBLE(result, rest, 0x1.71de3a74ef3cbp-19);
    result = DOUBLE(result, rest, 0x1.a01a01aed4b26p-16);
    result = DOUBLE(result, rest, 0x1.a01a01a014583p-13);
    result = DOUBLE(result, rest, 0x1.6c16c16c14a35p-10);
    result = DOUBLE(result, rest, 0x1.1111111111118p-7);
    result = DOUBLE(result, rest, 0x1.555555555555ap-5);
    result = DOUBLE(result, rest, 0x1.5555555555555p-3);
    result = DOUBLE(result, rest, 0x1p-1);
    result = 2 * DOUBLE(half, DOUBLE(result, rest * rest, lost) + rest, half - 0.5);
    result = between_double(x, -40, -1, 709.79, INFINITY, result);
    return __builtin_fabs(x) < 0x1p-60 ? x : result;
}

INLINE double sigmoid_double(double x)
{
    const double e = exp_below_double(-__builtin_fabs(x)), of = x < 0 ? e : 1;

    return DOUBLE(-of, e / (1 + e), of);
}

INLINE double tanh_double(double x)
{
    const double absolute = __builtin_fabs(x), square = x * x;
    const double large = 1 - 2 / (exp_beside_one_double(2 * absolute) + 1);
    double result = DOUBLE(-0x1.0da76ddacf821p-16, square, 0x1.4391460c37dbfp-14);
    result = DOUBLE(result, square, -0x1.df558a3ecd3e4p-13);
    result = DOUBLE(result, square, 0x1.336614fdedecep-11);
    result = DOUBLE(result, square, -0x1.7d68a383b5897p-10);
    result = DOUBLE(result, square, 0x1.d6cf28170fe0dp-9);
    result = DOUBLE(result, square, -0x1.226e162c38852p-7);
    result = DOUBLE(result, square, 0x1.664f477add18ap-6);
    result = DOUBLE(result, square, -0x1.ba1ba1b506555p-5);
    result = DOUBLE(result, square, 0x1.111111110accep-3);
    result = DOUBLE(result, square, -0x1.55555555554ffp-2);
    result = absolute > 0.625 ? large : DOUBLE(result * square, x, x);
    return __builtin_copysign(absolute > 20 ? 1 : result, x);
}

INLINE double erf_double(double x)
{
    const double absolute = __builtin_fabs(x), square = x * x;
    double result = DOUBLE(-0x1.abae802beb943p-31, square, 0x1.d71b20071978dp-27);
    result = DOUBLE(result, square, -0x1.5c07292318e06p-23);
    result = DOUBLE(result, square, 0x1.b97fd429b046cp-20);
    result = DOUBLE(result, square, -0x1.f4ca4d75fb210p-17);
    result = DOUBLE(result, square, 0x1.f9a2baa953bdfp-14);
    result = DOUBLE(result, square, -0x1.c02db03dd93c8p-11);
    result = DOUBLE(result, square, 0x1.565bccf92b310p-8);
    result = DOUBLE(result, square, -0x1.b82ce311fa935p-6);
    result = DOUBLE(result, square, 0x1.ce2f21a040d15p-4);
    result = DOUBLE(result, square, -0x1.812746b0379bdp-2);
    result = DOUBLE(result, square, 0x1.06eba8214db68p-3);
    double high = DOUBLE(0x1.5652e12caf948p-38, absolute, -0x1.bc3f492c792d8p-33);
    high = DOUBLE(high, absolute, 0x1.0b4db3564010fp-28);
    high = DOUBLE(high, absolute, -0x1.8a8adfde94251p-25);
    high = DOUBLE(high, absolute, 0x1.8ccca30ab7086p-22);
    high = DOUBLE(high, absolute, -0x1.1bd4e0cce9dfcp-19);
    high = DOUBLE(high, absolute, 0x1.1fd818225fb61p-17);
    high = DOUBLE(high, absolute, -0x1.7a052d60d8f88p-16);
    high = DOUBLE(high, absolute, 0x1.477e401e65aa2p-16);
    high = DOUBLE(high, absolute, 0x1.1e63d82c9aed7p-13);
    high = DOUBLE(high, absolute, -0x1.954d94574b4efp-11);
    high = DOUBLE(high, absolute, 0x1.f70b2ace85476p-10);
    high = DOUBLE(high, absolute, -0x1.b1a34c05c36d8p-12);
    high = DOUBLE(high, absolute, -0x1.37199511ae19cp-6);
    high = DOUBLE(high, absolute, 0x1.a4ab26b2ec779p-4);
    high = DOUBLE(high, absolute, 0x1.45f635b6d5f33p-1);
    high = DOUBLE(high, absolute, 0x1.20dd1e2e587dep+0);
    high = DOUBLE(high, absolute, 0x1.13911f99ef043p-21);
    high = 1 - exp_beside_one_double(-high);
    result = absolute > 1 ? high : DOUBLE(result, x, x);
    return __builtin_copysign(absolute > 6 ? 1 : result, x);
}

/* x as n, which is added to 2 to the 52 and 1024, and a number from sqrt(1/2) to sqrt(2), of which 1 is taken. */
INLINE double near_double(double x, double *n)
{
    const int tiny = x < 0x1p-1022;
    const uint64_t bits = bits_of_double(tiny ? x * 0x1p52 : x), sum = bits - 0x3fe6a09e667f3bcd + 0x4000000000000000;

    *n = double_of_bits(sum >> 52 | 0x4330000000000000) - (tiny ? 0x1p52 + 1076 : 0x1p52 + 1024);
    return double_of_bits(bits - (sum & 0xfff0000000000000) + 0x4000000000000000) - 1;
}

/* log(1 + near) - near + near squared / 2, and a part of it for near / (2 + near). */
INLINE double log_part_double(double near, double s)
{
    const double square = s * s;
    double result = DOUBLE(0x1.2f112df3e5244p-3, square, 0x1.39a09d078c69fp-3);

    result = DOUBLE(result, square, 0x1.7466496cb03dep-3);
    result = DOUBLE(result, square, 0x1.c71c51d8e78afp-3);
    result = DOUBLE(result, square, 0x1.2492494229359p-2);
    result = DOUBLE(result, square, 0x1.999999997fa04p-2);
    result = DOUBLE(result, square, 0x1.5555555555593p-1);
    return s * DOUBLE(result, square, 0.5 * near * near);
}

INLINE double log_of_double(double near, double n, double lost)
{
    const double part = log_part_double(near, near / (2 + near)), half = 0.5 * near * near;

    return n * 0x1.62e42feep-1 - (half - (part + (n * 0x1.a39ef35793c76p-33 + lost)) - near);
}

INLINE double log_where_double(double x, double result)
{
    const double finite = x < INFINITY ? result : x, other = x == 0 ? -INFINITY : NAN;

    return chosen_double(x > 0, finite, other);
}

INLINE double log_double(double x)
{
    double n, near = near_double(x, &n);

    return log_where_double(x, log_of_double(near, n, 0));
}

INLINE double log2_double(double x)
{
    double n, near = near_double(x, &n), half = 0.5 * near * near, part = log_part_double(near, near / (2 + near));
    const double high = double_of_bits(bits_of_double(near - half) & 0xffffffff00000000);
    const double low = near - high - half + part;
    const double top = high * 0x1.71547652p0, sum = n + top;
    const double rest = (low + high) * 0x1.705fc2eefa2p-33 + low * 0x1.71547652p0 + (n - sum + top);

    return log_where_double(x, sum + rest);
}

INLINE double log1p_double(double x)
{
    const double whole = 1 + x, lost = x - (whole - 1);
    double n, near = near_double(whole, &n), result;

    /* What 1 + x has lost is small beside x, or beside 1. */
    result = log_of_double(near, n, (__builtin_fabs(x) < 1 ? lost : 1 - (whole - x)) / whole);
    result = log_where_double(whole, result);
    return __builtin_fabs(x) < 0x1p-60 ? x : result;
}

INLINE double hypot_double(double x, double y)
{
    const double a = __builtin_fabs(x), b = __builtin_fabs(y), more = a < b ? b : a;
    const double scale = more > 0x1p500 ? 0x1p-600 : more < 0x1p-500 ? 0x1p700 : 1;
    const double back = more > 0x1p500 ? 0x1p600 : more < 0x1p-500 ? 0x1p-700 : 1;
    const double u = a * scale, v = b * scale;

    return ((a == INFINITY) | (b == INFINITY)) ? INFINITY : __builtin_sqrt(DOUBLE(u, u, v * v)) * back;
}

/* A small angle, to or from a multiple of pi/4. */
INLINE double atan2_double(double y, double x)
{
    const double a = __builtin_fabs(y), b = __builtin_fabs(x), less = a < b ? a : b, more = a < b ? b : a;
    const int both = (less == more) & (less == INFINITY), steep = a > b, left = __builtin_copysign(1, x) < 0;
    const int large = both | (less > more * 0.5);
    const double unit = more > 1 ? 0.5 : 1, u = less * unit, v = more * unit;
    const double over = large ? u - v : u, under = large ? u + v : v;
    const double ratio = both ? 0 : over / (under == 0 ? 1 : under), square = ratio * ratio;
    const double eighth = large ? 1.0 : 0.0, from = steep ? 2.0 : left ? 4.0 : 0.0;
    const double turned = left != steep ? from - eighth : from + eighth;
    double result = DOUBLE(-0x1.1032b09827c5bp-7, square, 0x1.82093b56eb1fbp-6);

    result = DOUBLE(result, square, -0x1.2f8ac16c23035p-5);
    result = DOUBLE(result, square, 0x1.77bfffe9a060fp-5);
    result = DOUBLE(result, square, -0x1.ac62bab4b04a5p-5);
    result = DOUBLE(result, square, 0x1.e17ffa6bca556p-5);
    result = DOUBLE(result, square, -0x1.110c43dc4329bp-4);
    result = DOUBLE(result, square, 0x1.3b135cd8c4e55p-4);
    result = DOUBLE(result, square, -0x1.745d135705897p-4);
    result = DOUBLE(result, square, 0x1.c71c71a8d9eabp-4);
    result = DOUBLE(result, square, -0x1.249249244d70ap-3);
    result = DOUBLE(result, square, 0x1.9999999998fb8p-3);
    result = DOUBLE(result, square, -0x1.5555555555551p-2);
    result = DOUBLE(result * square, ratio, ratio);
    result = left != steep ? -result : result;
    result = turned * 0x1.921fb544p-1 + (turned * 0x1.0b4611a626331p-35 + result);
    return x != x ? x : __builtin_copysign(result, y);
}

/* For |x| <= 1048576. What is less than a unit of the rest is `lost`. */
INLINE double turned_double(double x, uint64_t turn)
{
    const double sum = DOUBLE(x, 0x1.45f306dc9c883p-1, 0x1.8p52), n = sum - 0x1.8p52;
    const uint64_t quarter = bits_of_double(sum) + turn, odd = 0 - (quarter & 1);
    const double first = x - n * 0x1.921fb544p0, second = first - n * 0x1.0b4611a6p-34;
    const double third = second - n * 0x1.3198a2ep-69;
    const double more = (first - second - n * 0x1.0b4611a6p-34) + (second - third - n * 0x1.3198a2ep-69) -
                        n * 0x1.b839a252049c1p-104;
    const double rest = third + more, lost = third - rest + more, square = rest * rest, cube = square * rest;
    const double half = 0.5 * square, one = 1 - half;
    double sine = DOUBLE(0x1.5d93a5acfd57cp-33, square, -0x1.ae5e68a2b9cebp-26), cosine =
        DOUBLE(-0x1.8fae9be8838d4p-37, square, 0x1.1ee9ebdb4b1c4p-29);

    sine = DOUBLE(sine, square, 0x1.71de357b1fe7dp-19);
    sine = DOUBLE(sine, square, -0x1.a01a019c161d5p-13);
    sine = DOUBLE(sine, square, 0x1.111111110f8a6p-7);
    sine = rest - (square * (0.5 * lost - cube * sine) - lost - cube * -0x1.5555555555549p-3);
    cosine = DOUBLE(cosine, square, -0x1.27e4f809c52adp-22);
    cosine = DOUBLE(cosine, square, 0x1.a01a019cb159p-16);
    cosine = DOUBLE(cosine, square, -0x1.6c16c16c15177p-10);
    cosine = DOUBLE(cosine, square, 0x1.555555555554cp-5);
    cosine = one + (1 - one - half + (square * square * cosine - rest * lost));
    /* Not a comparison: SSE2 has none of integers of 64 bits. */
    return double_of_bits(((bits_of_double(sine) & ~odd) | (bits_of_double(cosine) & odd)) ^ (quarter & 2) << 62);
}

INLINE double sin_double(double x) { return x == 0 ? x : turned_double(x, 0); }

INLINE double cos_double(double x) { return turned_double(x, 1); }

INLINE double high_double(double v) { return double_of_bits(bits_of_double(v) & 0xffffffff00000000); }

/* fdlibm's, with the logarithm, to base 2, in two parts. */
INLINE double pow_double(double x, double y)
{
    const double absolute = __builtin_fabs(x), large = __builtin_fabs(y), far = 0x1p52;
    const int tiny = absolute < 0x1p-1022;
    const uint64_t bits = bits_of_double(tiny ? absolute * 0x1p52 : absolute);
    const double mantissa = double_of_bits((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
    const int above = mantissa > 1.7320508;
    const double m = above ? 0.5 * mantissa : mantissa, k = m > 1.2247 ? 1.0 : 0.0, base = 1 + 0.5 * k;
    const double n = double_of_bits(bits >> 52 | 0x4330000000000000) - (0x1p52 + 1023) - (tiny ? 52.0 : 0.0) +
        (above ? 1.0 : 0.0);
    const double over = m - base, under = 1 / (m + base), s = over * under, s_high = high_double(s);
    const double sum_high = high_double(m + base), sum_low = m - (sum_high - base);
    const double s_low = under * (over - s_high * sum_high - s_high * sum_low), square = s * s;
    const double square_high = s_high * s_high;
    double r = DOUBLE(0x1.a7e284a454eefp-3, square, 0x1.d864a93c9db65p-3), t_high, t_low, p_high, p_low, u, v, z_low,
        log_high, log_low, product, sum, result;

    r = DOUBLE(r, square, 0x1.17460a91d4101p-2);
    r = DOUBLE(r, square, 0x1.55555518f264dp-2);
    r = DOUBLE(r, square, 0x1.b6db6db6fabffp-2);
    r = DOUBLE(r, square, 0x1.3333333333303p-1);
    r = square * square * r + s_low * (s_high + s);
    t_high = high_double(3 + square_high + r);
    t_low = r - (t_high - 3 - square_high);
    u = s_high * t_high;
    v = s_low * t_high + t_low * s;
    p_high = high_double(u + v);
    p_low = v - (p_high - u);
    u = 0x1.ec709ep-1 * p_high;
    z_low = -0x1.e2fe0145b01f5p-28 * p_high + p_low * 0x1.ec709dc3a03fdp-1 + k * 0x1.cfdeb43cfd006p-27;
    v = k * 0x1.2b8034p-1;
    log_high = high_double(u + z_low + v + n);
    log_low = z_low - (log_high - n - v - u);
    u = chosen_double(large > 0x1p64, __builtin_copysign(0x1p64, y), y);
    v = high_double(u);
    p_low = (u - v) * log_high + u * log_low;
    p_high = v * log_high;
    product = p_high + p_low;
    sum = product + HALVES_DOUBLE;
    result = scaled_double(exp_of_rest_double((p_high - (sum - HALVES_DOUBLE) + p_low) * 0x1.62e42fefa39efp-1), sum);
    result = chosen_double(product < -1076, 0, chosen_double(product > 1025, INFINITY, result));
    result = chosen_double(absolute == 1, 1, result);
    result = chosen_double(absolute == 0, chosen_double(y > 0, 0, INFINITY), result);
    result = chosen_double(absolute == INFINITY, chosen_double(y > 0, INFINITY, 0), result);
    /* Adding 2 to the 52 rounds what is less. */
    u = chosen_double(large < 0x1p52, large, 0);
    v = chosen_double(large < 0x1p53, large * 0.5, 0);
    sum = chosen_double((absolute == 0) | (absolute == INFINITY), 1, NAN);
    sum = chosen_double(u + far - far == u, chosen_double(v + far - far == v, 1, -1), sum);
    result *= chosen_double(__builtin_copysign(1, x) < 0, sum, 1);
    result = chosen_double(x != x, x, chosen_double(y != y, y, result));
    return chosen_double((x == 1) | (y == 0), 1, result);
}

/* ------------------------------------------------------------------------------------------------ for logsumexp
 *
 * exp(x) for x <= 0, right to two units in the last place, three of the very small ones; 0 stands for what is below the
 * least normal number. It takes fewer instructions. */

INLINE float share_float(float x)
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

INLINE double share_double(double x)
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

#undef HALVES_FLOAT
#undef HALVES_DOUBLE
#undef DOUBLE
#undef FLOAT
#undef TIMES_PLUS
