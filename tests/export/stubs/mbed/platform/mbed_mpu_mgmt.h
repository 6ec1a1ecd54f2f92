/* Mbed OS forbids writes to flash and execution from RAM unless these are called; they count. */
#ifndef MBED_MPU_MGMT_H
#define MBED_MPU_MGMT_H

extern volatile int mbed_writes, mbed_executions;

static inline void mbed_mpu_manager_lock_rom_write(void) { ++mbed_writes; }
static inline void mbed_mpu_manager_unlock_rom_write(void) { --mbed_writes; }
static inline void mbed_mpu_manager_lock_ram_execution(void) { ++mbed_executions; }
static inline void mbed_mpu_manager_unlock_ram_execution(void) { --mbed_executions; }

#endif
