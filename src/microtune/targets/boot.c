/*
 * boot.c: firmware that lives a package's uses on a board of qemu-system-arm and prints what came of it.
 *
 * Compiled with BOOT_DEVICE, the device's name, and BOOT_HEADER, its header; uses are in boot_uses.c, made for the
 * package. There is no storage. Instructions are counted with the SysTick timer: under -icount each takes the same
 * time.
 */
#include BOOT_HEADER
#include "boot.h"

#define JOIN_NAMES(device, verb) device##_##verb
#define JOIN(device, verb) JOIN_NAMES(device, verb)
#define CALL(verb) JOIN(BOOT_DEVICE, verb)

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define COPROCESSOR_ACCESS REGISTER(0xE000ED88u)
#define TIMER_CONTROL REGISTER(0xE000E010u)
#define TIMER_START REGISTER(0xE000E014u)
#define TIMER REGISTER(0xE000E018u)
#define TIMER_LARGEST 0x00FFFFFFu

#define SEMIHOSTING_WRITE 0x04u
#define SEMIHOSTING_EXIT 0x18u
#define STOPPED_BY_EXIT 0x20026u
#define STOPPED_BY_ERROR 0x20024u

/* given by the linker */
extern uint32_t boot_stack_top[];
extern uint32_t boot_data_from[];
extern uint32_t boot_data[];
extern uint32_t boot_data_end[];
extern uint32_t boot_cleared[];
extern uint32_t boot_cleared_end[];

void boot_reset(void);
void boot_fault(void);
void boot_tick(void);

/* addresses of code and one of data: the table holds them all as pointers to functions */
typedef void (*boot_entry)(void);

static BOOT_DEVICE device;
static volatile uint32_t wraps;

/// Semihosting: qemu prints and stops ///

static void ask(uint32_t operation, uintptr_t argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register uintptr_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

static void stop(uint32_t reason)
{
    ask(SEMIHOSTING_EXIT, reason);
    for (;;) {
    }
}

/* NAME, a space, VALUE in hexadecimal, a new line */
static void print(const char *name, uint32_t value)
{
    char line[64];
    uint32_t length = 0;
    while (name[length] != '\0') {
        line[length] = name[length];
        ++length;
    }
    line[length++] = ' ';
    for (uint32_t digit = 8; digit-- > 0;) {
        line[length++] = "0123456789abcdef"[(value >> (4u * digit)) & 15u];
    }
    line[length++] = '\n';
    line[length] = '\0';
    ask(SEMIHOSTING_WRITE, (uintptr_t)line);
}

/// Counting ///

/* ticks since the start; the timer counts down, and is seldom at its end */
static uint64_t now(void)
{
    uint32_t seen, left;
    do {
        seen = wraps;
        left = TIMER;
    } while (seen != wraps);
    return (uint64_t)seen * (TIMER_LARGEST + 1u) + (TIMER_LARGEST - left);
}

#define LOOP 1000000u

/* 2 x LOOP instructions and a few */
static void loop(void)
{
    uint32_t left = LOOP;
    __asm__ volatile("1: subs %0, %0, #1\n bne 1b" : "+l"(left) : : "cc");
}

/* CRC-32 (IEEE 802.3) */
static uint32_t crc(uint32_t start, const void *data, uint32_t bytes)
{
    const uint8_t *from = (const uint8_t *)data;
    uint32_t sum = ~start;
    for (uint32_t i = 0; i < bytes; ++i) {
        sum ^= from[i];
        for (uint32_t bit = 0; bit < 8; ++bit) {
            sum = (sum >> 1) ^ (0xEDB88320u & (0u - (sum & 1u)));
        }
    }
    return ~sum;
}

/// The uses ///

static uint64_t largest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void live(void)
{
    static uint32_t output[BOOT_OUTPUTS];
    mt_prediction prediction;
    mt_update update = {0};
    uint64_t predict = 0, observe = 0, idle = 0, start, taken;
    uint32_t answers = 0, status = (uint32_t)CALL(init)(&device, NULL);
    for (uint32_t use = 0; use < BOOT_USES && status == 0; ++use) {
        start = now();
        status |= (uint32_t)CALL(predict)(&device, (const void *)boot_inputs[use], (void *)output, &prediction);
        taken = now() - start;
        predict = largest(predict, taken);
        answers = crc(answers, output, sizeof output);
        start = now();
        status |= (uint32_t)CALL(observe)(&device, (const void *)boot_targets[use]);
        taken = now() - start;
        observe = largest(observe, taken);
        start = now();
        do {
            status |= (uint32_t)CALL(idle)(&device, &update);
        } while (update.more != 0 && status == 0);
        taken = now() - start;
        idle = largest(idle, taken);
    }
    start = now();
    loop();
    taken = now() - start;
    print("status", status);
    print("state", crc(0, (const uint8_t *)&device + sizeof(void *), BOOT_SAVED));
    print("answers", answers);
    print("loop", (uint32_t)taken);
    start = now();
    taken = now() - start;
    print("empty", (uint32_t)taken);
    print("predict", (uint32_t)predict);
    print("observe", (uint32_t)observe);
    print("idle", (uint32_t)idle);
}

/// Start ///

/* not inlined: it may use the coprocessor, which is not on before */
__attribute__((noinline)) static void begin(void)
{
    uint32_t *from = boot_data_from;
    for (uint32_t *to = boot_data; to < boot_data_end; ++to) {
        *to = *from++;
    }
    for (uint32_t *to = boot_cleared; to < boot_cleared_end; ++to) {
        *to = 0;
    }
    TIMER_START = TIMER_LARGEST;
    TIMER = 0;
    TIMER_CONTROL = 7u; /* the processor's clock, an interrupt at each end, on */
    live();
    stop(STOPPED_BY_EXIT);
}

void boot_reset(void)
{
    COPROCESSOR_ACCESS |= 0xFu << 20; /* floating-point and vector units, where there are some */
    __asm__ volatile("dsb\n isb" : : : "memory");
    begin();
}

void boot_fault(void)
{
    ask(SEMIHOSTING_WRITE, (uintptr_t)"fault\n");
    stop(STOPPED_BY_ERROR);
}

void boot_tick(void)
{
    ++wraps;
}

extern const boot_entry boot_vectors[16];
__attribute__((section(".vectors"), used)) const boot_entry boot_vectors[16] = {
    (boot_entry)(uintptr_t)boot_stack_top, boot_reset, boot_fault, boot_fault, boot_fault, boot_fault, boot_fault,
    boot_fault, 0, 0, 0, boot_fault, boot_fault, 0, boot_fault, boot_tick,
};
