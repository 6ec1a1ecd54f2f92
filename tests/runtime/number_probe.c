/* number_probe.c: mt_number.h of fixed-point numbers: function, count, the arguments a, b and c; then the results. */
#include <stdio.h>

#include "mt_number_fixed.h"

static uint32_t call(uint32_t function, uint32_t a, uint32_t b, uint32_t c)
{
    switch (function) {
    case 0: return (uint32_t)mt_number_of(a);
    case 1: return mt_number_whole((mt_number)a);
    case 2: return (uint32_t)mt_number_share((mt_number)a, b);
    case 3: return (uint32_t)mt_number_mean((mt_number)a, (mt_number)b, c);
    case 4: return (uint32_t)mt_number_lives(a, b);
    case 5: return (uint32_t)mt_number_chance((mt_number)a, b);
    case 6: return mt_number_byte((mt_number)a);
    case 7: return mt_number_float_bits((mt_number)a);
    default: return (uint32_t)mt_fixed_share_of_one((mt_fixed)a);
    }
}

int main(void)
{
    uint32_t head[2], given[3], result = 0;
    while (fread(head, sizeof head, 1, stdin) == 1) {
        for (uint32_t i = 0; i < head[1]; ++i) {
            if (fread(given, sizeof given, 1, stdin) != 1) {
                return 2;
            }
            /* function 8: a mean that goes on from value to value */
            result = head[0] == 8u ? (uint32_t)mt_number_mean((mt_number)result, (mt_number)given[0], i + 1u)
                                   : call(head[0], given[0], given[1], given[2]);
            fwrite(&result, sizeof result, 1, stdout);
        }
    }
    return 0;
}
