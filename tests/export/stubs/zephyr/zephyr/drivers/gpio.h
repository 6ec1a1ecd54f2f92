/* A board without the alias sw0. */
#ifndef ZEPHYR_GPIO_H
#define ZEPHYR_GPIO_H

#include <stddef.h>
#include <stdint.h>

struct device;

struct gpio_dt_spec {
    const struct device *port;
    uint8_t pin;
    uint16_t dt_flags;
};

#define GPIO_INPUT (1u << 16)
#define DT_ALIAS(name) name
#define GPIO_DT_SPEC_GET_OR(node, property, otherwise) otherwise

int gpio_pin_configure_dt(const struct gpio_dt_spec *spec, uint32_t extra_flags);
int gpio_pin_get_dt(const struct gpio_dt_spec *spec);

#endif
