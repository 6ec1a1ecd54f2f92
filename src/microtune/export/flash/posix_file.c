/*
 * posix_file.c: a file, on Linux and other POSIX systems. MT_FLASH_FILE names it; beside the program unless set.
 *
 * Each write and each erase is on the disk (fsync) when it returns: the state is whole after a power cut only if they
 * arrive in their order. The file is opened once and locked; a second program on it gets no storage.
 */
#define _POSIX_C_SOURCE 200809L

#include "mt_flash.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#ifndef MT_FLASH_FILE
#define MT_FLASH_FILE "microtune.flash"
#endif

#define SECTOR 4096u
#ifndef MT_FLASH_SIZE
#define MT_FLASH_SIZE MT_FLASH_BYTES(SECTOR)
#endif

static int file = -1;

static int is_inside(uint32_t address, uint32_t bytes)
{
    return address <= MT_FLASH_SIZE && bytes <= MT_FLASH_SIZE - address;
}

static int write_all(uint32_t address, const uint8_t *from, uint32_t bytes)
{
    for (uint32_t done = 0; done < bytes;) {
        const ssize_t part = pwrite(file, from + done, bytes - done, (off_t)address + (off_t)done);
        if (part > 0) {
            done += (uint32_t)part;
        } else if (part == 0 || errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

static int flash_read(void *context, uint32_t address, void *data, uint32_t bytes)
{
    (void)context;
    if (!is_inside(address, bytes)) {
        return -1;
    }
    for (uint32_t done = 0; done < bytes;) {
        const ssize_t part = pread(file, (uint8_t *)data + done, bytes - done, (off_t)address + (off_t)done);
        if (part > 0) {
            done += (uint32_t)part;
        } else if (part == 0 || errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

static int flash_write(void *context, uint32_t address, const void *data, uint32_t bytes)
{
    (void)context;
    return is_inside(address, bytes) && write_all(address, (const uint8_t *)data, bytes) == 0 ? fsync(file) : -1;
}

static int flash_erase(void *context, uint32_t address, uint32_t bytes)
{
    uint8_t erased[256];
    (void)context;
    if (!is_inside(address, bytes) || address % SECTOR != 0 || bytes % SECTOR != 0) {
        return -1;
    }
    memset(erased, 0xFF, sizeof erased);
    for (uint32_t i = 0; i < bytes; i += (uint32_t)sizeof erased) {
        if (write_all(address + i, erased, (uint32_t)sizeof erased) != 0) {
            return -1;
        }
    }
    return fsync(file);
}

/* one at a time: the lock goes when the program ends, however it ends */
static int lock(void)
{
    struct flock all;
    memset(&all, 0, sizeof all);
    all.l_type = F_WRLCK;
    all.l_whence = SEEK_SET;
    return fcntl(file, F_SETLK, &all);
}

int mt_flash_open(mt_port *port)
{
    memset(port, 0, sizeof *port);
    if (file < 0) {
        file = open(MT_FLASH_FILE, O_RDWR | O_CREAT, 0600);
    }
    if (file < 0 || lock() != 0) {
        return -1;
    }
    /* a new file, or one of a build with less storage, is lengthened by zeros: never written */
    const off_t found = lseek(file, 0, SEEK_END);
    if (found < 0 || (found < (off_t)MT_FLASH_SIZE && ftruncate(file, (off_t)MT_FLASH_SIZE) != 0)) {
        return -1;
    }
    port->read = flash_read;
    port->write = flash_write;
    port->erase = flash_erase;
    port->size = MT_FLASH_SIZE;
    port->sector = SECTOR;
    port->log = MT_FLASH_LOG(SECTOR);
    return 0;
}
