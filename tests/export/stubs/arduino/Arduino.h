/* What the sketch needs of Arduino, and the macros of its cores that are known to get in the way of others' headers. */
#ifndef ARDUINO_H
#define ARDUINO_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define HIGH 0x1
#define LOW 0x0
#define INPUT 0x0
#define OUTPUT 0x1
#define INPUT_PULLUP 0x2
#define DEFAULT 1
#define EXTERNAL 0
#define B0 0
#define B1 1
#define B10 2
#define PI 3.1415926535897932384626433832795
#define F_CPU 64000000L
#define F(text) (text)
#define abs(x) ((x) > 0 ? (x) : -(x))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define round(x) ((x) >= 0 ? (long)((x) + 0.5) : (long)((x)-0.5))
#define constrain(x, low, high) ((x) < (low) ? (low) : ((x) > (high) ? (high) : (x)))
#define sq(x) ((x) * (x))
#define bit(b) (1UL << (b))
#define interrupts() ((void)0)
#define noInterrupts() ((void)0)
#define lowByte(w) ((uint8_t)((w)&0xff))

typedef uint8_t byte;
typedef bool boolean;

unsigned long millis(void);
void delay(unsigned long milliseconds);
void pinMode(uint8_t pin, uint8_t mode);
int digitalRead(uint8_t pin);
long random(long most);

struct SerialPort {
    void begin(unsigned long baud);
    size_t print(const char *text);
};
extern SerialPort Serial;

void setup(void);
void loop(void);

#endif
