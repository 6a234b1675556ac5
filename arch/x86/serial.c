// SPDX-License-Identifier: BSD-2-Clause
// The console: COM1 (16550), polled, so that it works in every state the kernel may be in.
#include "arch/x86/serial.h"

#include "arch/x86/cpu.h"

enum {
    COM1 = 0x3f8,
    REG_DATA = 0, // divisor, low byte, while LCR_DLAB is set
    REG_IER = 1,  // divisor, high byte
    REG_FCR = 2,
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    LCR_8N1 = 0x03,
    LCR_DLAB = 0x80,
    FCR_ENABLE_CLEAR = 0x07,
    MCR_DTR_RTS = 0x03,
    LSR_THR_EMPTY = 0x20,
    DIVISOR_115200 = 1,
    SPINS_MAX = 1000000,
};

void serial_init(void)
{
    outb(COM1 + REG_IER, 0);
    outb(COM1 + REG_LCR, LCR_DLAB);
    outb(COM1 + REG_DATA, DIVISOR_115200);
    outb(COM1 + REG_IER, 0);
    outb(COM1 + REG_LCR, LCR_8N1);
    outb(COM1 + REG_FCR, FCR_ENABLE_CLEAR);
    outb(COM1 + REG_MCR, MCR_DTR_RTS);
}

// No carriage return before a line feed: what reads this is a log or QEMU's terminal, which adds
// its own.
void serial_write(const char *buf, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned spins = SPINS_MAX;

        while (!(inb(COM1 + REG_LSR) & LSR_THR_EMPTY) && --spins > 0)
            cpu_pause();
        outb(COM1 + REG_DATA, (uint8_t)buf[i]);
    }
}
