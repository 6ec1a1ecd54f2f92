/*
 * mt_platform.h: what differs between compilers, and nothing else.
 *
 * Freestanding: the only things asked of a C library are memcpy and memset, which compilers call anyway.
 */
#ifndef MT_PLATFORM_H
#define MT_PLATFORM_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MT_COPY(to, from, bytes) __builtin_memcpy((to), (from), (bytes))
#define MT_ZERO(to, bytes) __builtin_memset((to), 0, (bytes))
#else
#include <string.h>
#define MT_COPY(to, from, bytes) memcpy((to), (from), (bytes))
#define MT_ZERO(to, bytes) memset((to), 0, (bytes))
#endif

#ifdef __cplusplus
#define MT_RESTRICT
#else
#define MT_RESTRICT restrict
#endif

/* Optimise for size: policy and storage run once a use, kernels thousands of times. */
#if defined(__GNUC__)
#define MT_COLD __attribute__((cold))
#else
#define MT_COLD
#endif

/* 16 bits that may lie in an array of numbers, as characters may: one arena holds values of all types */
#if defined(__GNUC__)
typedef int16_t __attribute__((may_alias)) mt_int16;
#else
typedef int16_t mt_int16;
#endif

/* Inlined whatever its size: the sizes it is given are constants, and most of it goes. */
#if defined(__GNUC__)
#define MT_INLINE static inline __attribute__((always_inline))
#else
#define MT_INLINE static inline
#endif

/* Whether floats are numbers in registers of their own, without vectors: Arm cores with a floating-point unit. Sums
 * side by side pay there; in calls of a library they are only longer, and vectors have their own way. */
#if defined(__arm__) && defined(__ARM_FP) && !defined(__ARM_NEON)
#define MT_SCALAR_FLOATS 1
#else
#define MT_SCALAR_FLOATS 0
#endif

/* Cortex-M0, M0+ and M23 multiply 32 bits and keep 32 of the product: longer ones are put together from 16-bit halves,
 * in half of what a call of the compiler's library takes. */
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#define MT_SHORT_PRODUCTS
#endif

/* Of these, Cortex-M0 and M0+ divide in software. */
#if defined(__ARM_ARCH_6M__)
#define MT_NO_DIVIDER
#endif

/* One copy in flash, whatever calls it. */
#if defined(__GNUC__)
#define MT_APART __attribute__((noinline, unused))
#else
#define MT_APART
#endif

/* before a loop over sums: vectors belong inside each sum, not across them, where each element would be gathered */
#if defined(__clang__)
#define MT_ONE_BY_ONE _Pragma("clang loop vectorize(disable)")
#else
#define MT_ONE_BY_ONE
#endif

/* before a loop of at most four turns, written out so that what it adds up stays in registers */
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 8)
#define MT_UNROLL _Pragma("GCC unroll 4")
#else
#define MT_UNROLL
#endif

/* before a loop that fills the registers as it is */
#if defined(__clang__)
#define MT_NOT_UNROLLED _Pragma("clang loop unroll(disable)")
#else
#define MT_NOT_UNROLLED
#endif

/* the compiler forgets what it knows of a variable */
#if defined(__GNUC__)
#define MT_OPAQUE(variable) __asm__("" : "+r"(variable))
#else
#define MT_OPAQUE(variable)
#endif

/* Words that lie where words do: a library's memcpy, which does not know that, takes longer for few of them. */
static inline void mt_copy_words(void *to, const void *from, uint32_t words)
{
    uint32_t *put = (uint32_t *)to;
    const uint32_t *next = (const uint32_t *)from;
    for (; words != 0; --words) {
        uint32_t word;
        MT_COPY(&word, next++, sizeof word);
        MT_OPAQUE(word); /* or the loop becomes a call of memcpy */
        MT_COPY(put++, &word, sizeof word);
    }
}

/* refuse to compile when a condition known at compile time does not hold; name says which */
#define MT_REQUIRE(condition, name) typedef char mt_require_##name[(condition) ? 1 : -1]

MT_REQUIRE(sizeof(float) == 4, float_is_32_bits);

#endif
