/* Vectors of four elements of four bytes: every processor's compiler has them. */
#ifndef DOT_FOUR_H
#define DOT_FOUR_H

#include <stdint.h>

typedef uint32_t four __attribute__((vector_size(16)));

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (four){__VA_ARGS__})
#endif

#endif
