/* boot.h: the uses that boot.c lives, written to boot_uses.c for each package. */
#ifndef MT_BOOT_H
#define MT_BOOT_H

#include <stdint.h>

#include "boot_sizes.h"

/* BOOT_USES: how many uses. BOOT_INPUT_WORDS, BOOT_TARGET_WORDS: 32-bit words of one input and one target as the C
 * takes them. BOOT_OUTPUTS: numbers of one output. BOOT_SAVED: bytes of the device that are saved. */
extern const uint32_t boot_inputs[BOOT_USES][BOOT_INPUT_WORDS];
extern const uint32_t boot_targets[BOOT_USES][BOOT_TARGET_WORDS];

#endif
