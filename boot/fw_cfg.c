// SPDX-License-Identifier: BSD-2-Clause
// Files that QEMU hands to the guest, through the fw_cfg device's I/O ports (QEMU
// docs/specs/fw_cfg).
#include "boot/fw_cfg.h"

#include "arch/x86/cpu.h"
#include "lib/printk.h"
#include "lib/string.h"

enum {
    PORT_SELECTOR = 0x510,
    PORT_DATA = 0x511,
    KEY_SIGNATURE = 0x0000,
    KEY_NB_CPUS = 0x0005,
    KEY_FILE_DIR = 0x0019,
    FILES_MAX = 4096, // QEMU itself has far fewer; a device that says more is none
};

// As in the directory; the numbers are big-endian.
struct file {
    uint32_t size;
    uint16_t select;
    uint16_t reserved;
    char name[56];
};

static void read_bytes(void *to, size_t len)
{
    for (uint8_t *p = to; len > 0; len--)
        *p++ = inb(PORT_DATA);
}

static bool present(void)
{
    char signature[4];

    outw(PORT_SELECTOR, KEY_SIGNATURE);
    read_bytes(signature, sizeof(signature));
    return memcmp(signature, "QEMU", sizeof(signature)) == 0;
}

static bool find(const char *name, struct file *file)
{
    uint32_t count;

    outw(PORT_SELECTOR, KEY_FILE_DIR);
    read_bytes(&count, sizeof(count));
    count = MIN(__builtin_bswap32(count), FILES_MAX);
    for (uint32_t i = 0; i < count; i++) {
        read_bytes(file, sizeof(*file));
        file->name[sizeof(file->name) - 1] = '\0';
        if (strcmp(file->name, name) == 0)
            return true;
    }
    return false;
}

bool fw_cfg_read(const char *name, char *buf, size_t size)
{
    struct file file;
    size_t bytes, n;

    if (!present() || !find(name, &file))
        return false;
    bytes = __builtin_bswap32(file.size);
    n = MIN(bytes, size - 1);
    if (n < bytes)
        printk("boot: fw_cfg's %s of %zu bytes is cut to %zu\n", name, bytes, n);
    outw(PORT_SELECTOR, __builtin_bswap16(file.select));
    read_bytes(buf, n);
    buf[n] = '\0';
    return true;
}

uint32_t fw_cfg_cpus(void)
{
    uint16_t cpus; // little-endian

    if (!present())
        return 1;
    outw(PORT_SELECTOR, KEY_NB_CPUS);
    read_bytes(&cpus, sizeof(cpus));
    return cpus ? cpus : 1;
}
