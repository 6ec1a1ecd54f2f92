/* The four functions every C compiler may call even without a C library, for targets that have no <string.h>. */
#ifndef MT_FREESTANDING_STRING_H
#define MT_FREESTANDING_STRING_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void *memcpy(void *destination, const void *source, size_t size);
void *memmove(void *destination, const void *source, size_t size);
void *memset(void *destination, int value, size_t size);
int memcmp(const void *left, const void *right, size_t size);

#ifdef __cplusplus
}
#endif

#endif
