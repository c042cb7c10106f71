/* The named ops for one type, in each instruction set. Expects ELEMENT, SUM, TOTAL, MATH, FMA and TYPED; undefines them. */
#include "dot_ops.h"

#define LEVEL 0
#define TARGET
#define LEVELED(name) TYPED(name##_0)
#include "dot_table.h"
#undef LEVEL
#undef TARGET
#undef LEVELED

#if HAS_AVX
#define LEVEL 1
#define TARGET AVX2
#define LEVELED(name) TYPED(name##_1)
#include "dot_table.h"
#undef LEVEL
#undef TARGET
#undef LEVELED

#define LEVEL 2
#define TARGET AVX512
#define LEVELED(name) TYPED(name##_2)
#include "dot_table.h"
#undef LEVEL
#undef TARGET
#undef LEVELED
#endif

#undef ELEMENT
#undef SUM
#undef TOTAL
#undef MATH
#undef FMA
#undef TYPED
