/*
 * mt_kernels_block_move.h: how an int8 weight and an int32 bias move, for updates from gradients as blocks.
 *
 * An int8 weight learns in steps of 1/256 of its grid: `rest` holds what is left of it between two grid points (error
 * feedback), so that no small move is lost. What is smaller still is rounded with a dither, one for all weights of an
 * output channel, which walks by the golden ratio from step to step: over the steps each move keeps its mean. noise
 * counts the steps, salt is another for each tensor.
 *
 * factors (2 + channels), a block, turns a product of gradient and input into such a move, learning rate and scales and
 * all. The velocity of momentum is in the unit of the move: v = m v + move, w -= v, with momentum m in 15 binary
 * places; 0 for none, `velocity` being NULL then.
 */
#ifndef MT_KERNELS_BLOCK_MOVE_H
#define MT_KERNELS_BLOCK_MOVE_H

#include "mt_kernels_block.h"
#include "mt_random.h"

/* 2^32 over the golden ratio */
#define MT_GOLDEN 0x9E3779B9u
/* biases stay within so many grid steps: a layer's sum then fits as well */
#define MT_LARGEST_BIAS 1073741823
#define MT_LARGEST_VELOCITY 536870911
/* moves have so many places until they are rounded down: what is handed on is the lower half of a word */
#define MT_MOVE_PLACES 16

#if defined(__GNUC__)
#define MT_RARELY(condition) __builtin_expect((condition), 0)
#else
#define MT_RARELY(condition) (condition)
#endif

/// Moves ///

/* where the dither of a tensor begins: from its own place, a step of the golden ratio for each step of learning */
static inline uint32_t mt_dither_begin(uint32_t noise, uint32_t salt)
{
    return (noise + salt) * MT_GOLDEN;
}

/* How a product of 30 digits becomes what is moved by: 2^-down, or 2^up where it grows, kept within `most`. */
typedef struct {
    int32_t down;
    int32_t half;
    int32_t up;
    int32_t most;
} mt_block_scaling;

/* of 2^exponent; a result of fewer than 30 digits loses `digits` of them */
static inline mt_block_scaling mt_block_scaling_of(int32_t exponent, int32_t digits)
{
    mt_block_scaling scaling;
    scaling.down = exponent > 0 ? 0 : (exponent < -31 ? 31 : -exponent);
    scaling.half = scaling.down > 0 ? 1 << (scaling.down - 1) : 0;
    scaling.up = exponent > 30 ? 30 : (exponent > 0 ? exponent : 0);
    scaling.most = exponent < -digits ? 0 : (1 << (30 - digits)) - 1;
    return scaling;
}

/* rounded to nearest; |product| <= 2^30 */
MT_INLINE int32_t mt_block_units(int32_t product, const mt_block_scaling *scaling)
{
    int32_t units = (product + scaling->half) >> scaling->down;
    if (scaling->most != 0) {
        /* moves beyond what is usual */
        units = mt_clamp_int32(units, -(scaling->most >> scaling->up), scaling->most >> scaling->up)
            * (1 << scaling->up);
    }
    return units;
}

/* of a dense layer: within 2^22, so that a product with an input less its zero point fits */
MT_INLINE int32_t mt_block_factor(int32_t product, int32_t down)
{
    const int32_t factor = product >> down;
    if (MT_RARELY(((uint32_t)factor + 4194304u) >> 23 != 0u)) {
        return factor < 0 ? -4194304 : 4194303;
    }
    return factor;
}

/* Added to the moves, and to the velocities, of a channel before they are rounded down. */
typedef struct {
    int32_t moves;
    int32_t velocities;
} mt_block_dither;

static inline mt_block_dither mt_block_dither_of(uint32_t seed)
{
    mt_block_dither dither;
    dither.moves = (int32_t)(seed >> 16);
    dither.velocities = (int32_t)(seed & 0x7FFFu);
    return dither;
}

/* a weight goes on by whole steps, `left` having left its eight bits; what is left then, in its lower byte */
MT_COLD static inline int32_t mt_block_carry(int8_t *w, int32_t left)
{
    const int32_t whole = *w + ((left + 128) >> 8);
    if ((uint32_t)(whole + 128) > 255u) {
        *w = whole > 0 ? 127 : -128;
        return *w;
    }
    *w = (int8_t)whole;
    return left;
}

/* one weight down by units / 2^24 of a grid step, |units| <= 2^30 */
MT_INLINE void mt_block_step(int8_t *w, int8_t *rest, mt_int16 *velocity, int32_t units, int32_t momentum,
                             const mt_block_dither *dither)
{
    int32_t move = (units + dither->moves) >> MT_MOVE_PLACES;
    if (velocity != NULL) {
        /* rounded to nearest, a small velocity would never fall */
        move = mt_clamp_int32(((*velocity * momentum + dither->velocities) >> 15) + move, -32767, 32767);
        *velocity = (int16_t)move;
    }
    int32_t left = *rest - move;
    if ((uint32_t)(left + 128) > 255u) {
        left = mt_block_carry(w, left);
    }
    *rest = (int8_t)((uint32_t)left & 0xFFu);
}

/* a row of weights down by factor * (x - x_zero) units each */
MT_INLINE void mt_block_row(int8_t *w, int8_t *rest, const int8_t *x, uint32_t count, int32_t factor,
                            const mt_block_dither *dither, int32_t x_zero)
{
#if defined(__ARM_ARCH_6M__) && (defined(__clang__) || (defined(__GNUC__) && !defined(__OPTIMIZE_SIZE__)))
    /* By hand: compilers run out of the eight registers and take twice as many instructions. Indices run up to zero. */
    int32_t i = -(int32_t)count;
    int32_t a, b;
    __asm__ volatile(
        ".syntax unified\n"
        "1:\n\t"
        "ldrsb %[a], [%[x], %[i]]\n\t"
        "add %[a], %[zero]\n\t"
        "muls %[a], %[factor], %[a]\n\t"
        "beq 2f\n\t" /* nothing moves, as for an input behind a ReLU that is zero */
        "add %[a], %[dither]\n\t"
        "asrs %[a], %[a], #16\n\t"
        "ldrsb %[b], [%[rest], %[i]]\n\t"
        "subs %[b], %[b], %[a]\n\t"
        "strb %[b], [%[rest], %[i]]\n\t"
        "sxtb %[a], %[b]\n\t"
        "cmp %[a], %[b]\n\t"
        "bne 3f\n"
        "2:\n\t"
        "adds %[i], #1\n\t"
        "bne 1b\n\t"
        "b 6f\n"
        "3:\n\t" /* as mt_block_carry has it */
        "adds %[b], #128\n\t"
        "asrs %[b], %[b], #8\n\t"
        "ldrsb %[a], [%[w], %[i]]\n\t"
        "adds %[a], %[a], %[b]\n\t"
        "sxtb %[b], %[a]\n\t"
        "cmp %[b], %[a]\n\t"
        "bne 5f\n"
        "4:\n\t"
        "strb %[a], [%[w], %[i]]\n\t"
        "adds %[i], #1\n\t"
        "bne 1b\n\t"
        "b 6f\n"
        "5:\n\t" /* 127 and 127 / 256 at one end, -128 and -128 / 256 at the other */
        "asrs %[a], %[a], #31\n\t"
        "movs %[b], #127\n\t"
        "eors %[a], %[a], %[b]\n\t"
        "strb %[a], [%[rest], %[i]]\n\t"
        "b 4b\n"
        "6:\n"
        : [i] "+l"(i), [a] "=&l"(a), [b] "=&l"(b)
        : [x] "l"(x + count), [rest] "l"(rest + count), [w] "l"(w + count), [factor] "l"(factor),
          [dither] "h"(dither->moves), [zero] "h"(-x_zero)
        : "cc", "memory");
#else
    MT_NOT_UNROLLED
    for (uint32_t i = 0; i < count; ++i) {
        mt_block_step(w + i, rest + i, NULL, factor * (x[i] - x_zero), 0, dither);
    }
#endif
}

/* How a bias moves by a product of 30 digits: less after a shift, dithered over what another takes, or more. */
typedef struct {
    int32_t before;
    int32_t places;
    mt_block_scaling scaling;
} mt_block_bias_scaling;

static inline mt_block_bias_scaling mt_block_bias_scaling_of(int32_t exponent)
{
    mt_block_bias_scaling found;
    found.before = exponent >= -30 ? 0 : (exponent > -60 ? -30 - exponent : 30);
    found.places = exponent >= 0 ? 0 : (exponent > -30 ? -exponent : 30);
    found.scaling = mt_block_scaling_of(exponent > 0 ? exponent : -31, 0);
    return found;
}

/* in whole grid steps of the bias; |product| <= 2^30 */
MT_INLINE int32_t mt_block_bias_move(int32_t product, const mt_block_bias_scaling *by, uint32_t seed)
{
    if (by->scaling.most != 0) {
        return mt_block_units(product, &by->scaling);
    }
    return ((product >> by->before) + (int32_t)((seed >> 1) >> (31 - by->places))) >> by->places;
}

/* one bias down by `move` of its own grid; it begins within its limits, -2^30 counted in */
static inline void mt_block_bias_step(int32_t *b, int32_t *velocity, int32_t move, int32_t momentum, uint32_t seed)
{
    if (velocity != NULL) {
        const int32_t low = (*velocity & 0x7FFF) * momentum + (int32_t)(seed & 0x7FFFu);
        move += (*velocity >> 15) * momentum + (low >> 15);
        move = mt_clamp_int32(move, -MT_LARGEST_VELOCITY, MT_LARGEST_VELOCITY);
        *velocity = move;
    }
    const int32_t moved = *b - move;
#if defined(__GNUC__)
    int32_t doubled;
    const int beyond = __builtin_add_overflow(moved, moved, &doubled);
#else
    const int beyond = (uint32_t)moved + 0x40000000u > 0x7FFFFFFFu;
#endif
    *b = moved;
    if (MT_RARELY(beyond)) {
        *b = moved < 0 ? -MT_LARGEST_BIAS : MT_LARGEST_BIAS;
    }
}

/* sum * factor / 2^15, rounded down, without a product beyond 32 bits: |sum| <= 2^30, |factor| < 2^15 */
static inline int32_t mt_block_product(int32_t sum, int32_t factor)
{
    return (sum >> 15) * factor + (((sum & 0x7FFF) * factor) >> 15);
}

/// Back to the base ///

/* weights by `share` (31 binary places) of their way towards the base, rounded with the numbers of mt_random.h */
static inline void mt_pull_int8(int8_t *w, int8_t *rest, const int8_t *base, uint32_t size, int32_t share_q31,
                                uint32_t *random)
{
    const int32_t high = share_q31 >> 16;
    const int32_t low = share_q31 >> 8 & 0xFF;
    /* a number drawn for each call, and the golden ratio from there */
    uint32_t seed = mt_random_next(random);
    for (uint32_t i = 0; i < size; ++i) {
        const int32_t away = mt_clamp_int32(w[i] * 256 + rest[i] - base[i] * 256, -65535, 65535);
        const int32_t left = rest[i] - ((away * high + ((away * low) >> 8) + (int32_t)(seed >> 17)) >> 15);
        seed += MT_GOLDEN;
        rest[i] = (int8_t)((uint32_t)((uint32_t)(left + 128) > 255u ? mt_block_carry(w + i, left) : left) & 0xFFu);
    }
}

/* the same for biases */
static inline void mt_pull_int32(int32_t *b, const int32_t *base, uint32_t size, int32_t share_q31, uint32_t *random)
{
    uint32_t seed = mt_random_next(random);
    for (uint32_t i = 0; i < size; ++i) {
        const int64_t move = ((int64_t)b[i] - base[i]) * share_q31 + (seed >> 1);
        b[i] = (int32_t)(b[i] - (move >> 31));
        seed += MT_GOLDEN;
    }
}

#endif
