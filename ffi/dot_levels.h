/* Includes BODY for each instruction set, with LEVEL (see dot_level.h), TARGET, the attribute of its functions, and
 * LEVELED(name), which names them. Expects BODY, a file's name, and FEATURES: what is needed beside AVX-512, as
 * ",avx512vbmi", or "". Undefines them all. */

#define LEVEL 0
#define TARGET
#define LEVELED(name) PASTE(name, _baseline)
#include BODY
#undef LEVEL
#undef TARGET
#undef LEVELED

#if HAS_AVX
#define LEVEL 1
#define TARGET AVX2
#define LEVELED(name) PASTE(name, _avx2)
#include BODY
#undef LEVEL
#undef TARGET
#undef LEVELED

#define LEVEL 2
#define TARGET AVX512_WITH(FEATURES)
#define LEVELED(name) PASTE(name, _avx512)
#include BODY
#undef LEVEL
#undef TARGET
#undef LEVELED
#endif

#undef BODY
#undef FEATURES
