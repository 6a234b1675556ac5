// SPDX-License-Identifier: BSD-2-Clause
// Reads what a multiboot2 boot loader left in memory (Multiboot2 specification 2.0, section 3.6).
#include "boot/multiboot2.h"

#include "boot/bootinfo.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/printk.h"
#include "lib/string.h"

enum {
    TAG_END = 0,
    TAG_CMDLINE = 1,
    TAG_MODULE = 3,
    TAG_MMAP = 6,
    TAG_ACPI_OLD = 14,
    TAG_ACPI_NEW = 15,
    TAG_ALIGN = 8,
    MBI_HEADER = 8,    // total size, reserved
    MBI_MAX = 1 << 20, // nobody needs more; what says so is damaged
};

struct tag {
    uint32_t type;
    uint32_t size; // of the whole tag, without the padding behind it
};

struct tag_module {
    struct tag tag;
    uint32_t start, end;
    char string[];
};

struct tag_mmap {
    struct tag tag;
    uint32_t entry_size, entry_version;
};

struct mmap_entry {
    uint64_t start, bytes;
    uint32_t type, reserved;
};

struct boot_info boot_info;

// Copies the string that fills the tag from offset on, whether or not it has an end.
static void copy_string(char *to, size_t size, const struct tag *tag, size_t offset,
                        const char *what)
{
    const char *from = (const char *)tag + offset;
    size_t room = tag->size > offset ? tag->size - offset : 0, len = 0;

    while (len < room && from[len] != '\0')
        len++;
    if (len >= size) {
        printk("boot: %s of %zu characters is cut to %zu\n", what, len, size - 1);
        len = size - 1;
    }
    memcpy(to, from, len);
    to[len] = '\0';
}

static void parse_module(struct boot_info *bi, const struct tag *tag)
{
    const struct tag_module *m = (const struct tag_module *)tag;
    struct boot_module *module;

    if (tag->size < sizeof(*m) || m->end < m->start) {
        printk("boot: a module with a bad size is left out\n");
        return;
    }
    if (bi->module_count == BOOT_MODULE_MAX) {
        printk("boot: more than %d modules, the rest is left out\n", BOOT_MODULE_MAX);
        return;
    }
    module = &bi->module[bi->module_count++];
    module->start = PADDR(m->start);
    module->end = PADDR(m->end);
    copy_string(module->name, sizeof(module->name), tag, sizeof(*m), "a module's name");
}

static void parse_mmap(struct boot_info *bi, const struct tag *tag)
{
    const struct tag_mmap *map = (const struct tag_mmap *)tag;
    size_t offset = sizeof(*map), left_out = 0;

    if (tag->size < sizeof(*map) || map->entry_size < sizeof(struct mmap_entry)) {
        printk("boot: a memory map with a bad size is left out\n");
        return;
    }
    for (; tag->size - offset >= map->entry_size; offset += map->entry_size) {
        const struct mmap_entry *e = (const struct mmap_entry *)((const char *)tag + offset);

        if (bi->mem_count == BOOT_MEM_MAX) {
            left_out++;
            continue;
        }
        bi->mem[bi->mem_count++] =
            (struct boot_mem){.start = PADDR(e->start), .bytes = e->bytes, .type = e->type};
    }
    if (left_out > 0)
        printk("boot: memory map: %zu entries more than %d are left out\n", left_out, BOOT_MEM_MAX);
}

// contents: where what follows the tag's head lies in physical memory.
static void parse_tag(struct boot_info *bi, const struct tag *tag, paddr_t contents)
{
    switch (tag->type) {
    case TAG_CMDLINE:
        copy_string(bi->cmdline, sizeof(bi->cmdline), tag, sizeof(*tag), "the command line");
        break;
    case TAG_MODULE:
        parse_module(bi, tag);
        break;
    case TAG_MMAP:
        parse_mmap(bi, tag);
        break;
    case TAG_ACPI_OLD:
        // The newer pointer, with the 64-bit address, wins whichever comes first.
        if (bi->rsdp.v == 0)
            bi->rsdp = contents;
        break;
    case TAG_ACPI_NEW:
        bi->rsdp = contents;
        break;
    default:
        break;
    }
}

int multiboot2_parse(const void *info, paddr_t mbi, struct boot_info *bi)
{
    uint32_t total = *(const uint32_t *)info, offset = MBI_HEADER;

    if (total < MBI_HEADER + sizeof(struct tag) || total > MBI_MAX) {
        printk("boot: the multiboot2 information has a size of %u bytes\n", total);
        return -EINVAL;
    }
    memset(bi, 0, sizeof(*bi));
    bi->mbi_start = mbi;
    bi->mbi_end = PADDR(mbi.v + total);
    while (total - offset >= sizeof(struct tag)) {
        const struct tag *tag = (const struct tag *)((const char *)info + offset);

        if (tag->type == TAG_END)
            break;
        if (tag->size < sizeof(*tag) || tag->size > total - offset) {
            printk("boot: multiboot2 tag %u at offset %u has a size of %u bytes, the rest is left "
                   "out\n",
                   tag->type, offset, tag->size);
            break;
        }
        parse_tag(bi, tag, PADDR(mbi.v + offset + sizeof(*tag)));
        offset += MIN(ROUND_UP(tag->size, TAG_ALIGN), total - offset);
    }
    return bi->mem_count > 0 ? 0 : -ENOENT;
}

void multiboot2_init(paddr_t mbi)
{
    int err;

    if (mbi.v == 0 || !IS_ALIGNED(mbi.v, TAG_ALIGN))
        panic("boot: the multiboot2 information can't be at 0x%lx", mbi.v);
    err = multiboot2_parse((const void *)(uintptr_t)mbi.v, mbi, &boot_info);
    if (err != 0)
        panic("boot: the boot loader gave no usable memory map: %s", error_name(err));
}
