// What NVRTC has no headers for: types, constants, and copies into shared memory.
#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define INT64_C(value) value##LL
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#define OP_FUNCTION static __device__ __forceinline__

// Copies to shared memory, past the registers where the processor can: they are there after copies_arrive() and
// __syncthreads(). Of 4, 8 or 16 bytes. RESIDENT: how many blocks a multiprocessor is to hold, of so many where copies
// need no registers.
#if __CUDA_ARCH__ >= 800
#define RESIDENT(blocks) (blocks)
template <int bytes> OP_FUNCTION void copy(void *to, const void *from)
{
    const unsigned shared = (unsigned)__cvta_generic_to_shared(to);
    if (bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared), "l"(from), "n"(bytes) : "memory");
}
OP_FUNCTION void copies_arrive() { asm volatile("cp.async.wait_all;" ::: "memory"); }
OP_FUNCTION float greater(float a, float b)
{
    float c;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
    return c;
}
OP_FUNCTION float lesser(float a, float b)
{
    float c;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
    return c;
}
#else
#define RESIDENT(blocks) ((blocks) > 1 ? (blocks)-1 : 1)
template <int bytes> OP_FUNCTION void copy(void *to, const void *from)
{
    if (bytes == 16)
        *(int4 *)to = *(const int4 *)from;
    else if (bytes == 8)
        *(int2 *)to = *(const int2 *)from;
    else
        *(int *)to = *(const int *)from;
}
OP_FUNCTION void copies_arrive() {}
#endif

// Of numbers of two types, as <tgmath.h> has them, for the C that users give.
#define OF_TWO(name)                                                                                                   \
    template <class A, class B> OP_FUNCTION decltype(A() + B() + 0.0f) name(A a, B b)                                  \
    {                                                                                                                  \
        typedef decltype(a + b + 0.0f) Both;                                                                           \
        return name((Both)a, (Both)b);                                                                                 \
    }
OF_TWO(atan2)
OF_TWO(fdim)
OF_TWO(fmax)
OF_TWO(fmin)
OF_TWO(fmod)
OF_TWO(hypot)
OF_TWO(nextafter)
OF_TWO(pow)
OF_TWO(remainder)

OP_FUNCTION float of_float16(uint16_t bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
OP_FUNCTION uint16_t to_float16(float value)
{
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
OP_FUNCTION uint32_t bits_of(float value) { return __float_as_uint(value); }
OP_FUNCTION float of_bits(uint32_t bits) { return __uint_as_float(bits); }
#endif

// The greater and the lesser number, or NaN, where there is no instruction for it.
template <class T> OP_FUNCTION T greater(T a, T b) { return a > b || a != a ? a : b; }
template <class T> OP_FUNCTION T lesser(T a, T b) { return a < b || a != a ? a : b; }
OP_FUNCTION float of_bfloat16(uint16_t bits) { return of_bits((uint32_t)bits << 16); }
OP_FUNCTION uint16_t to_bfloat16(float value)
{
    const uint32_t bits = bits_of(value);
    return value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
// Which C has inlined, and CUDA hasn't.
OP_FUNCTION float sigmoidf(float a) { return 1 / (1 + expf(-a)); }
OP_FUNCTION double sigmoid(double a) { return 1 / (1 + exp(-a)); }
