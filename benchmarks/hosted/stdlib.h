/* likewise; nothing that is measured draws a random number or allocates */
#ifndef HOSTED_STDLIB_H
#define HOSTED_STDLIB_H

#include <stddef.h>

#define RAND_MAX 0x7FFFFFFF

int abs(int value);
int rand(void);
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void free(void *memory);

#endif
