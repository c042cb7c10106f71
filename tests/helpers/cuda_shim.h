// CUDA's words for a C++ compiler. A block's threads are contexts of one thread, which take turns at each barrier.
// Shared memory is static, and full of garbage at first.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

struct int2 { int x, y; };
struct int4 { int x, y, z, w; };
struct Dim { int x, y, z; };
static Dim threadIdx, blockIdx;
#define __global__
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define OP_FUNCTION static inline
#define __expf expf
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
template <class T> static inline T greater(T a, T b);
template <class T> static inline T lesser(T a, T b);
template <int bytes> static inline void copy(void *to, const void *from)
{
    // Of 16 bytes only where the hardware can.
    if (((uintptr_t)to | (uintptr_t)from) % bytes)
        abort();
    memcpy(to, from, bytes);
}
static inline void copies_arrive() {}
static inline int __popc(unsigned bits)
{
    int count = 0;
    for (; bits; bits &= bits - 1)
        count++;
    return count;
}
static inline uint32_t bits_of(float value) { uint32_t bits; memcpy(&bits, &value, 4); return bits; }
static inline float of_bits(uint32_t bits) { float value; memcpy(&value, &bits, 4); return value; }
static inline float of_float16(uint16_t bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                       : exponent ? ldexpf(1024 + fraction, exponent - 25) : ldexpf(fraction, -24);
    return bits >> 15 ? -size : size;
}
static inline uint16_t to_float16(float value)
{
    const uint16_t sign = bits_of(value) >> 31 << 15;
    const float size = fabsf(value);
    int exponent;
    if (value != value)
        return 0x7fff;
    if (size >= 65520)
        return sign | 31 << 10;
    frexpf(size, &exponent);
    exponent = exponent < -13 ? -13 : exponent;
    // Rounded to even: a carry goes into the exponent.
    return size == 0 ? sign : sign + ((exponent + 13) << 10) + (int)rintf(ldexpf(size, 11 - exponent));
}

enum { MOST_THREADS = 512, STACK = 1 << 16 };
static ucontext_t shim_scheduler, shim_threads[MOST_THREADS];
static char *shim_stacks;
static int shim_done;
static void (*shim_kernel)();
static void __syncthreads() { swapcontext(&shim_threads[threadIdx.x], &shim_scheduler); }
static int shim_votes[2][MOST_THREADS], shim_voted[MOST_THREADS];
// A warp's votes. All threads of a block vote: by turns in two places, as one may vote again before others have counted.
static unsigned __ballot_sync(unsigned, bool is)
{
    int *votes = shim_votes[shim_voted[threadIdx.x]++ % 2];
    unsigned all = 0;
    votes[threadIdx.x] = is;
    __syncthreads();
    for (int lane = 0; lane < 32; lane++)
        all |= (unsigned)votes[threadIdx.x / 32 * 32 + lane] << lane;
    return all;
}
static void shim_thread()
{
    shim_kernel();
    shim_done++;
}
static void shim_run(int gx, int gy, int gz, int threads, void (*kernel)())
{
    shim_kernel = kernel;
    if (!shim_stacks)
        shim_stacks = (char *)malloc((size_t)MOST_THREADS * STACK);
    for (blockIdx.z = 0; blockIdx.z < gz; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < gy; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < gx; blockIdx.x++) {
                for (int t = 0; t < threads; t++) {
                    getcontext(&shim_threads[t]);
                    shim_threads[t].uc_stack.ss_sp = shim_stacks + (size_t)t * STACK;
                    shim_threads[t].uc_stack.ss_size = STACK;
                    shim_threads[t].uc_link = &shim_scheduler;
                    makecontext(&shim_threads[t], shim_thread, 0);
                }
                // A kernel's threads meet the same barriers: they end in the same turn.
                for (shim_done = 0; shim_done < threads;) {
                    const int before = shim_done;
                    for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
                        swapcontext(&shim_scheduler, &shim_threads[threadIdx.x]);
                    if (shim_done != before && shim_done != threads)
                        abort();
                }
            }
}
