/*
 * simulated_flash.c: flash behind the functions of the Pico SDK, ESP-IDF, Zephyr and POSIX.
 *
 * Erasing sets all bits and programming only clears them. Whatever a chip or an SDK would not take (out of line, out of
 * bounds, to what is not erased, with interrupts on) is counted in `breaches`. The power fails after a number of steps:
 * a byte programmed is one, a sector erased is 16. What is under way then is left with any of its bits.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "esp_partition.h"
#include "hardware/flash.h"
#include "hardware/sync.h"
#include "zephyr/storage/flash_map.h"

#define SIZE 65536u
#define SECTOR 4096u
#define START 8192u /* of the storage: what is before is firmware */

uint8_t simulated_bytes[SIZE] __attribute__((aligned(4096)));
static uint8_t written[SIZE]; /* POSIX: on the disk, as far as it was synchronised */

static struct {
    uint32_t steps, left, random;
    int dead, disabled, protected_, align, even, posix;
    uint32_t breaches;
} sim;

static uint32_t draw(void)
{
    sim.random = sim.random * 1664525u + 1013904223u;
    return sim.random >> 8;
}

void simulate(uint32_t left, uint32_t seed)
{
    sim.dead = sim.disabled = 0;
    sim.steps = 0;
    sim.left = left;
    sim.random = seed;
    if (sim.posix) {
        memcpy(simulated_bytes, written, SIZE);
    }
}

void simulate_kind(int align, int even, int protect)
{
    sim.align = align;
    sim.even = even;
    sim.protected_ = protect;
}

uint32_t simulated_steps(void)
{
    return sim.steps;
}

uint32_t simulated_breaches(void)
{
    return sim.breaches;
}

uint8_t *simulated_storage(void)
{
    return simulated_bytes;
}

uint8_t *simulated_disk(void)
{
    return written;
}

/* 1: the power is still there after this many steps; else what is under way is torn */
static int spend(uint32_t steps)
{
    sim.steps += steps;
    if (sim.dead || sim.left < steps) {
        sim.left = 0;
        return 0;
    }
    sim.left -= steps;
    return 1;
}

static int program(uint32_t at, const uint8_t *data, uint32_t bytes)
{
    if (at < START || at > SIZE || bytes > SIZE - at) {
        ++sim.breaches;
        return -1;
    }
    if (sim.protected_ || sim.dead) {
        return -1;
    }
    for (uint32_t i = 0; i < bytes; ++i) {
        if (data[i] == 0xFF) {
            continue;
        }
        sim.breaches += simulated_bytes[at + i] != 0xFF;
        if (!spend(1)) {
            simulated_bytes[at + i] &= (uint8_t)(data[i] | draw());
            sim.dead = 1;
            return -1;
        }
        simulated_bytes[at + i] &= data[i];
    }
    return 0;
}

static int erase(uint32_t at, uint32_t bytes)
{
    if (at < START || at > SIZE || bytes > SIZE - at || at % SECTOR != 0 || bytes % SECTOR != 0) {
        ++sim.breaches;
        return -1;
    }
    for (uint32_t i = at; i < at + bytes; i += SECTOR) {
        if (sim.protected_ || sim.dead) {
            return -1;
        }
        if (!spend(16)) {
            for (uint32_t k = i; k < i + SECTOR; ++k) {
                simulated_bytes[k] |= (uint8_t)draw();
            }
            sim.dead = 1;
            return -1;
        }
        memset(simulated_bytes + i, 0xFF, SECTOR);
    }
    return 0;
}

static int fetch(uint32_t at, void *data, uint32_t bytes)
{
    if (at < START || at > SIZE || bytes > SIZE - at) {
        ++sim.breaches;
        return -1;
    }
    memcpy(data, simulated_bytes + at, bytes);
    return 0;
}

/// Pico SDK: no errors, whole pages, interrupts off; on Mbed OS, execution from RAM allowed ///

#ifdef __MBED__
#include "platform/mbed_mpu_mgmt.h"
#define RAM_ALLOWED (mbed_executions == 1)
#else
#define RAM_ALLOWED 1
#endif

void flash_range_erase(uint32_t flash_offs, size_t count)
{
    sim.breaches += !sim.disabled || !RAM_ALLOWED;
    (void)erase(flash_offs, (uint32_t)count);
}

void flash_range_program(uint32_t flash_offs, const uint8_t *data, size_t count)
{
    sim.breaches += !sim.disabled || !RAM_ALLOWED || flash_offs % FLASH_PAGE_SIZE != 0 || count % FLASH_PAGE_SIZE != 0;
    (void)program(flash_offs, data, (uint32_t)count);
}

uint32_t save_and_disable_interrupts(void)
{
    sim.disabled = 1;
    return 0xA5u;
}

void restore_interrupts(uint32_t status)
{
    sim.breaches += status != 0xA5u;
    sim.disabled = 0;
}

/* ESP-IDF and Zephyr look themselves */
static int is_outside(size_t at, size_t bytes)
{
    return at > SIZE - START || bytes > SIZE - START - at;
}

/// ESP-IDF: a partition behind the firmware ///

static esp_partition_t partition;

const esp_partition_t *esp_partition_find_first(esp_partition_type_t type, esp_partition_subtype_t subtype,
                                                const char *label)
{
    memset(&partition, 0, sizeof partition);
    partition.size = SIZE - START + (sim.even ? 0u : 512u);
    partition.erase_size = SECTOR;
    return type == ESP_PARTITION_TYPE_DATA && subtype == ESP_PARTITION_SUBTYPE_ANY && strcmp(label, "microtune") == 0
               ? &partition
               : NULL;
}

esp_err_t esp_partition_read(const esp_partition_t *given, size_t src_offset, void *dst, size_t size)
{
    sim.breaches += given != &partition;
    if (is_outside(src_offset, size)) {
        return ESP_FAIL;
    }
    return fetch(START + (uint32_t)src_offset, dst, (uint32_t)size) == 0 ? ESP_OK : ESP_FAIL;
}

esp_err_t esp_partition_write(const esp_partition_t *given, size_t dst_offset, const void *src, size_t size)
{
    /* as in an encrypted partition */
    sim.breaches += given != &partition || dst_offset % 16u != 0 || size % 16u != 0;
    if (is_outside(dst_offset, size)) {
        return ESP_FAIL;
    }
    return program(START + (uint32_t)dst_offset, (const uint8_t *)src, (uint32_t)size) == 0 ? ESP_OK : ESP_FAIL;
}

esp_err_t esp_partition_erase_range(const esp_partition_t *given, size_t offset, size_t size)
{
    sim.breaches += given != &partition;
    if (is_outside(offset, size)) {
        return ESP_FAIL;
    }
    return erase(START + (uint32_t)offset, (uint32_t)size) == 0 ? ESP_OK : ESP_FAIL;
}

/// Zephyr: an area behind the firmware ///

static const struct flash_area area = {3, START, SIZE - START, NULL};

int flash_area_open(uint8_t id, const struct flash_area **fa)
{
    *fa = &area;
    return id == area.fa_id ? 0 : -2;
}

int flash_area_read(const struct flash_area *fa, off_t off, void *dst, size_t len)
{
    if (is_outside((size_t)off, len)) {
        return -22;
    }
    return fetch((uint32_t)(fa->fa_off + off), dst, (uint32_t)len);
}

int flash_area_write(const struct flash_area *fa, off_t off, const void *src, size_t len)
{
    const uint32_t align = flash_area_align(fa);
    sim.breaches += (uint32_t)off % align != 0 || len % align != 0;
    if (is_outside((size_t)off, len)) {
        return -22;
    }
    return program((uint32_t)(fa->fa_off + off), (const uint8_t *)src, (uint32_t)len);
}

int flash_area_erase(const struct flash_area *fa, off_t off, size_t len)
{
    if (is_outside((size_t)off, len)) {
        return -22;
    }
    return erase((uint32_t)(fa->fa_off + off), (uint32_t)len);
}

uint32_t flash_area_align(const struct flash_area *fa)
{
    (void)fa;
    return sim.align ? (uint32_t)sim.align : 8u;
}

const struct device *flash_area_get_device(const struct flash_area *fa)
{
    return fa->fa_dev;
}

bool flash_area_device_is_ready(const struct flash_area *fa)
{
    return fa == &area;
}

int flash_get_page_info_by_offs(const struct device *dev, off_t offset, struct flash_pages_info *info)
{
    (void)dev;
    info->index = (uint32_t)offset / SECTOR;
    info->start_offset = (off_t)(info->index * SECTOR);
    info->size = !sim.even && info->index + 1u == SIZE / SECTOR ? SECTOR / 2u : SECTOR;
    return offset < (off_t)SIZE ? 0 : -22;
}

/// POSIX: what is not synchronised may be lost, or half of it, in any order ///

int simulated_open(const char *path, int flags, ...);
int simulated_open(const char *path, int flags, ...)
{
    (void)path;
    (void)flags;
    sim.posix = 1;
    return 7;
}

int simulated_fcntl(int file, int command, ...);
int simulated_fcntl(int file, int command, ...)
{
    (void)command;
    sim.breaches += file != 7;
    return 0;
}

off_t simulated_lseek(int file, off_t to, int from);
off_t simulated_lseek(int file, off_t to, int from)
{
    sim.breaches += file != 7 || to != 0;
    (void)from;
    return 0;
}

int simulated_ftruncate(int file, off_t length);
int simulated_ftruncate(int file, off_t length)
{
    sim.breaches += file != 7 || length > (off_t)SIZE;
    return 0;
}

ssize_t simulated_pread(int file, void *data, size_t bytes, off_t at);
ssize_t simulated_pread(int file, void *data, size_t bytes, off_t at)
{
    /* in pieces, as a read may be */
    const size_t part = bytes > 40u ? 40u : bytes;
    sim.breaches += file != 7 || (size_t)at + bytes > SIZE;
    memcpy(data, simulated_bytes + at, part);
    return (ssize_t)part;
}

ssize_t simulated_pwrite(int file, const void *data, size_t bytes, off_t at);
ssize_t simulated_pwrite(int file, const void *data, size_t bytes, off_t at)
{
    const size_t part = bytes > 100u ? 100u : bytes;
    sim.breaches += file != 7 || (size_t)at + bytes > SIZE;
    if (sim.dead || sim.protected_) {
        return -1;
    }
    memcpy(simulated_bytes + at, data, part);
    return (ssize_t)part;
}

int simulated_fsync(int file);
int simulated_fsync(int file)
{
    sim.breaches += file != 7;
    for (uint32_t i = 0; i < SIZE && !sim.dead; ++i) {
        if (written[i] != simulated_bytes[i] && !spend(1)) {
            /* sectors reach the disk in any order */
            for (uint32_t k = 0; k < SIZE; ++k) {
                written[k] = draw() & 1u ? simulated_bytes[k] : written[k];
            }
            sim.dead = 1;
        } else if (!sim.dead) {
            written[i] = simulated_bytes[i];
        }
    }
    return sim.dead ? -1 : 0;
}
