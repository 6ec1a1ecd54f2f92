/* fixed_probe.c: the functions of mt_fixed.h over arrays: function, count, the arguments a and b; then the results. */
#include <stdio.h>
#include <stdlib.h>

#include "mt_fixed.h"

static mt_fixed call(uint32_t function, mt_fixed a, mt_fixed b)
{
    switch (function) {
    case 0: return mt_fixed_add(a, b);
    case 1: return mt_fixed_subtract(a, b);
    case 2: return mt_fixed_multiply(a, b);
    case 3: return mt_fixed_divide(a, b);
    case 4: return mt_fixed_exp(a);
    case 5: return mt_fixed_log(a);
    case 6: return mt_fixed_sigmoid(a);
    case 7: return mt_fixed_sqrt(a);
    case 8: return mt_fixed_absolute(a);
    case 9: return mt_fixed_of_int(a);
    case 10: return mt_fixed_floor(a);
    default: return mt_fixed_round(a);
    }
}

int main(void)
{
    uint32_t head[2];
    while (fread(head, sizeof head, 1, stdin) == 1) {
        mt_fixed *a = malloc(head[1] * sizeof *a);
        mt_fixed *b = malloc(head[1] * sizeof *b);
        if (a == NULL || b == NULL || fread(a, sizeof *a, head[1], stdin) != head[1] ||
            fread(b, sizeof *b, head[1], stdin) != head[1]) {
            return 2;
        }
        for (uint32_t i = 0; i < head[1]; ++i) {
            a[i] = call(head[0], a[i], b[i]);
        }
        fwrite(a, sizeof *a, head[1], stdout);
        fflush(stdout);
        free(a);
        free(b);
    }
    return 0;
}
