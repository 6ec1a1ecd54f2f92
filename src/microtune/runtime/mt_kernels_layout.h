/* mt_kernels_layout.h: values moved and not computed. Sizes are in elements of `bytes` bytes, or in bytes. */
#ifndef MT_KERNELS_LAYOUT_H
#define MT_KERNELS_LAYOUT_H

#include "mt_platform.h"

/* y (s0, s1, s2, s3) takes elements of x at steps t0 .. t3: the shape of y, and the stride of x for each axis of y */
static inline void mt_transpose(const void *MT_RESTRICT x, void *MT_RESTRICT y, uint32_t bytes, uint32_t s0,
                                uint32_t s1, uint32_t s2, uint32_t s3, uint32_t t0, uint32_t t1, uint32_t t2,
                                uint32_t t3)
{
    const uint8_t *const from = (const uint8_t *)x;
    uint8_t *to = (uint8_t *)y;
    for (uint32_t i = 0; i < s0; ++i) {
        for (uint32_t j = 0; j < s1; ++j) {
            for (uint32_t k = 0; k < s2; ++k) {
                for (uint32_t l = 0; l < s3; ++l) {
                    MT_COPY(to, from + (size_t)(i * t0 + j * t1 + k * t2 + l * t3) * bytes, bytes);
                    to += bytes;
                }
            }
        }
    }
}

/* A constant number of bytes: up to eight one by one on cores that read words only where words lie, where a call takes
 * longer. */
static inline void mt_copy_few(const uint8_t *MT_RESTRICT from, uint8_t *MT_RESTRICT to, uint32_t count)
{
#if defined(__ARM_ARCH_6M__)
    if (count <= 8u) {
        for (uint32_t i = 0; i < count; ++i) {
            uint32_t byte = from[i];
            MT_OPAQUE(byte); /* or the loop becomes a call of memcpy */
            to[i] = (uint8_t)byte;
        }
        return;
    }
#endif
    MT_COPY(to, from, count);
}

/* rows of `count` bytes, found every `from_step` bytes and put every `to_step` bytes */
static inline void mt_copy_rows(const void *MT_RESTRICT x, void *MT_RESTRICT y, uint32_t rows, uint32_t count,
                                uint32_t from_step, uint32_t to_step, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < rows; ++i) {
        mt_copy_few((const uint8_t *)x + from + (size_t)i * from_step, (uint8_t *)y + to + (size_t)i * to_step, count);
    }
}

static inline void mt_copy_bytes(const void *x, void *y, uint32_t bytes)
{
    if (x != y) {
        MT_COPY(y, x, bytes);
    }
}

/* x (s0, s1, s2) in the middle of y (d0, d1, d2), begun at (b0, b1, b2) */
static inline void mt_place(const void *MT_RESTRICT x, void *MT_RESTRICT y, uint32_t bytes, uint32_t s0, uint32_t s1,
                            uint32_t s2, uint32_t d1, uint32_t d2, uint32_t b0, uint32_t b1, uint32_t b2)
{
    for (uint32_t i = 0; i < s0; ++i) {
        mt_copy_rows(x, y, s1, s2 * bytes, s2 * bytes, d2 * bytes, i * s1 * s2 * bytes,
                     (((b0 + i) * d1 + b1) * d2 + b2) * bytes);
    }
}

static inline void mt_pad(const float *MT_RESTRICT x, float *MT_RESTRICT y, float value, uint32_t size, uint32_t s0,
                          uint32_t s1, uint32_t s2, uint32_t d1, uint32_t d2, uint32_t b0, uint32_t b1, uint32_t b2)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = value;
    }
    mt_place(x, y, sizeof *y, s0, s1, s2, d1, d2, b0, b1, b2);
}

static inline void mt_pad_int8(const int8_t *MT_RESTRICT x, int8_t *MT_RESTRICT y, int32_t value, uint32_t size,
                               uint32_t s0, uint32_t s1, uint32_t s2, uint32_t d1, uint32_t d2, uint32_t b0,
                               uint32_t b1, uint32_t b2)
{
    for (uint32_t i = 0; i < size; ++i) {
        y[i] = (int8_t)value;
    }
    mt_place(x, y, sizeof *y, s0, s1, s2, d1, d2, b0, b1, b2);
}

/* rows of a and b beside each other: `rows` times a_bytes, then b_bytes */
static inline void mt_concat(const void *MT_RESTRICT a, const void *MT_RESTRICT b, void *MT_RESTRICT y, uint32_t rows,
                             uint32_t a_bytes, uint32_t b_bytes)
{
    mt_copy_rows(a, y, rows, a_bytes, a_bytes, a_bytes + b_bytes, 0, 0);
    mt_copy_rows(b, y, rows, b_bytes, b_bytes, a_bytes + b_bytes, 0, a_bytes);
}

static inline void mt_concat_three(const void *MT_RESTRICT a, const void *MT_RESTRICT b, const void *MT_RESTRICT c,
                                   void *MT_RESTRICT y, uint32_t rows, uint32_t a_bytes, uint32_t b_bytes,
                                   uint32_t c_bytes)
{
    const uint32_t step = a_bytes + b_bytes + c_bytes;
    mt_copy_rows(a, y, rows, a_bytes, a_bytes, step, 0, 0);
    mt_copy_rows(b, y, rows, b_bytes, b_bytes, step, 0, a_bytes);
    mt_copy_rows(c, y, rows, c_bytes, c_bytes, step, 0, a_bytes + b_bytes);
}

static inline void mt_concat_four(const void *MT_RESTRICT a, const void *MT_RESTRICT b, const void *MT_RESTRICT c,
                                  const void *MT_RESTRICT d, void *MT_RESTRICT y, uint32_t rows, uint32_t a_bytes,
                                  uint32_t b_bytes, uint32_t c_bytes, uint32_t d_bytes)
{
    const uint32_t step = a_bytes + b_bytes + c_bytes + d_bytes;
    mt_copy_rows(a, y, rows, a_bytes, a_bytes, step, 0, 0);
    mt_copy_rows(b, y, rows, b_bytes, b_bytes, step, 0, a_bytes);
    mt_copy_rows(c, y, rows, c_bytes, c_bytes, step, 0, a_bytes + b_bytes);
    mt_copy_rows(d, y, rows, d_bytes, d_bytes, step, 0, a_bytes + b_bytes + c_bytes);
}

#endif
