/* For CMSIS-NN, which reads words by memcpy: a compiler that is told of no C library would call a function for each. */
#ifndef MT_CMSIS_NN_STRING_H
#define MT_CMSIS_NN_STRING_H

#include <stddef.h>

#define memcpy(to, from, bytes) __builtin_memcpy((to), (from), (bytes))
#define memmove(to, from, bytes) __builtin_memmove((to), (from), (bytes))
#define memset(to, value, bytes) __builtin_memset((to), (value), (bytes))
#define memcmp(left, right, bytes) __builtin_memcmp((left), (right), (bytes))

#endif
