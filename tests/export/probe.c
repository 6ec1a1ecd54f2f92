/* probe.c: a driver of mt_flash.h, and the store on it, to be called from a test. */
#include "mt_flash.h"
#include "mt_store.h"

#define IDENTITY 0x0DDBA11Du

#ifdef __MBED__
/* of stubs/mbed */
volatile int mbed_writes, mbed_executions;
#endif

static mt_port port;
static uint32_t sequence;

int probe_open(void);
uint32_t probe_size(void);
uint32_t probe_sector(void);
uint32_t probe_log(void);
int probe_read(uint32_t address, void *data, uint32_t bytes);
int probe_write(uint32_t address, const void *data, uint32_t bytes);
int probe_erase(uint32_t address, uint32_t bytes);
int probe_load(void *payload, uint32_t bytes, int *found);
int probe_save(const void *payload, uint32_t bytes);

int probe_open(void)
{
    sequence = 0;
    return mt_flash_open(&port);
}

uint32_t probe_size(void)
{
    return port.size;
}

uint32_t probe_sector(void)
{
    return port.sector;
}

uint32_t probe_log(void)
{
    return port.log;
}

int probe_read(uint32_t address, void *data, uint32_t bytes)
{
    return port.read(port.context, address, data, bytes);
}

int probe_write(uint32_t address, const void *data, uint32_t bytes)
{
    return port.write(port.context, address, data, bytes);
}

int probe_erase(uint32_t address, uint32_t bytes)
{
    return port.erase(port.context, address, bytes);
}

int probe_load(void *payload, uint32_t bytes, int *found)
{
    return (int)mt_store_load(&port, IDENTITY, payload, bytes, &sequence, found);
}

int probe_save(const void *payload, uint32_t bytes)
{
    return (int)mt_store_save(&port, IDENTITY, payload, bytes, &sequence);
}
