/* The kernels that look up terms one by one, for one type of entries and one instruction set. Expects
 * TYPED(name), ENTRY, SUM, TOTAL, LEAST and GREATEST, bounds of what a result can be, and what dot_levels.h defines. */
#include "dot_level.h"

#define NAME(function) LEVELED(TYPED(lookup_sum_##function))
#define ADDS DOT_SUM
#define START 0
#include "dot_lookup_one_body.h"
#undef NAME
#undef ADDS
#undef START

#define NAME(function) LEVELED(TYPED(lookup_max_##function))
#define ADDS DOT_MAX
#define START LEAST
#define BETTER(a, b) ((a) > (b))
#include "dot_lookup_one_body.h"
#undef NAME
#undef ADDS
#undef START
#undef BETTER

#define NAME(function) LEVELED(TYPED(lookup_min_##function))
#define ADDS DOT_MIN
#define START GREATEST
#define BETTER(a, b) ((a) < (b))
#include "dot_lookup_one_body.h"
#undef NAME
#undef ADDS
#undef START
#undef BETTER
