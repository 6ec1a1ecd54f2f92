/* likewise; nothing prints */
#ifndef HOSTED_STDIO_H
#define HOSTED_STDIO_H

int printf(const char *format, ...);

#endif
