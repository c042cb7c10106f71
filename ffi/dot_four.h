/* Vectors of four elements of four bytes: every processor's compiler has them. */
#ifndef DOT_FOUR_H
#define DOT_FOUR_H

#include <stdint.h>

#include "platform.h"

typedef uint32_t four __attribute__((vector_size(16)));

#define FOUR(a, b, ...) SHUFFLE(a, b, four, __VA_ARGS__)

#endif
