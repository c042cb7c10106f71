/* What a kernel needs to know of an instruction set. Expects LEVEL: 0 is what the compiler targets anyway, 1 AVX2 with
 * FMA, 2 AVX-512; and SUM, the type of sums, where LANES is used. May be included again and again. */
#undef VECTOR_BYTES
#undef ROWS
#undef GRAD_ROWS
#undef FUSED
#undef LANES

#if LEVEL == 2
#define VECTOR_BYTES 64
#define ROWS 12
#define GRAD_ROWS 6
#define FUSED 1
#elif LEVEL == 1
#define VECTOR_BYTES 32
#define ROWS 4
#define GRAD_ROWS 4
#define FUSED 1
#elif defined(__aarch64__)
/* The weights take registers too: of its 32, twelve rows of sums and what is on its way to them take more. */
#define VECTOR_BYTES 16
#define ROWS 8
#define GRAD_ROWS 4
#define FUSED 1
#else
#define VECTOR_BYTES 16
#define ROWS 4
#define GRAD_ROWS 4
#define FUSED 0
#endif

/* Two vectors of sums. */
#define LANES ((int)(2 * VECTOR_BYTES / sizeof(SUM)))

#ifndef INLINE
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define LANE_LOOP
#define ROW_LOOP _Pragma("clang loop unroll(full)")
#elif __GNUC__ >= 8
/* Unrolled, a loop over one vector's lanes wouldn't become a vector. */
#define LANE_LOOP _Pragma("GCC unroll 1")
#define ROW_LOOP _Pragma("GCC unroll 16")
#else
#define LANE_LOOP
#define ROW_LOOP
#endif
/* Makes a variable's value unknown to the compiler; the letter is that of vector registers. */
#if defined(__SSE__)
#define HIDE(value) __asm__("" : "+x"(value))
#elif defined(__aarch64__)
#define HIDE(value) __asm__("" : "+w"(value))
#else
#define HIDE(value) __asm__("" : "+m"(value))
#endif
#if defined(__aarch64__)
/* Its units do either. fmla would overwrite an operand that is needed again; fabd is |a - b| in one instruction. */
#define DIFFERENCE(a, b) ((void)fused, (void)one, (a) - (b))
#define PLUS(a, b) ((void)fused, (void)one, (a) + (b))
#else
#define DIFFERENCE(a, b) (fused ? FMA(a, one, -(b)) : (a) - (b))
#define PLUS(a, b) (fused ? FMA(a, one, b) : (a) + (b))
#endif
#endif
