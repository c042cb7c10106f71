/* Functions for several instruction sets of x86-64 in one library, and how they are named. */
#ifndef DOT_TARGET_H
#define DOT_TARGET_H

/* GCC 8 knows prefer-vector-width, without which it halves the vectors of AVX-512. */
#if defined(__x86_64__) && (__GNUC__ >= 8 || defined(__clang__))
#define HAS_AVX 1
#else
#define HAS_AVX 0
#endif

#define AVX512_FEATURES "avx512f,avx512vl,avx512bw,avx512dq"
#define AVX2 __attribute__((target("avx2,fma")))
#if defined(__clang__)
#define AVX512_WITH(more) __attribute__((target(AVX512_FEATURES more), min_vector_width(512)))
#else
#define AVX512_WITH(more) __attribute__((target(AVX512_FEATURES more ",prefer-vector-width=512")))
#endif

/* Both are expanded before they are joined. */
#define PASTE(a, b) PASTE_(a, b)
#define PASTE_(a, b) a##b

/* What dot_levels.h has made of `name`, by level. */
#if HAS_AVX
#define LEVELS(name) {name##_baseline, name##_avx2, name##_avx512}
#else
#define LEVELS(name) {name##_baseline, name##_baseline, name##_baseline}
#endif

#endif
