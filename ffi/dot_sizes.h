/* Includes BODY for elements of each size, with WORD, an integer of that size, and NAME(function), which names its
 * functions as BY_SIZE of dot_problem.h calls them. Expects BODY, a file's name, which undefines both; undefines BODY. */

#define NAME(function) function##_1
#define WORD uint8_t
#include BODY
#define NAME(function) function##_2
#define WORD uint16_t
#include BODY
#define NAME(function) function##_4
#define WORD uint32_t
#include BODY
#define NAME(function) function##_8
#define WORD uint64_t
#include BODY

#undef BODY
