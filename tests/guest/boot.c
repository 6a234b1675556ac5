// SPDX-License-Identifier: BSD-2-Clause
// Tests: what the boot loader says is not trusted; and the small functions of lib/.
#include "boot/multiboot2.h"
#include "lib/error.h"
#include "lib/string.h"
#include "tests/guest/test.h"

static struct boot_info info;

// A multiboot2 information structure under construction.
static struct {
    uint32_t total, reserved;
    uint32_t words[64];
} __attribute__((aligned(8))) mbi;

static void mbi_start(void)
{
    memset(&mbi, 0, sizeof(mbi));
    mbi.total = 8;
}

// Appends 32-bit words and pads to 8 bytes.
static void mbi_add(const uint32_t *words, unsigned count)
{
    memcpy((char *)&mbi + mbi.total, words, count * sizeof(*words));
    mbi.total += ROUND_UP(count * sizeof(*words), 8);
}
#define MBI_ADD(...)                                                                               \
    mbi_add((const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

static int parse(void)
{
    return multiboot2_parse(&mbi, PADDR(0x10000), &info);
}

GUEST_TEST(boot_info_good)
{
    mbi_start();
    MBI_ADD(1, 15, 0x74736574, 0x00783d); // "test=x"
    MBI_ADD(3, 20, 0x300000, 0x301234, 0x0061);
    MBI_ADD(6, 16 + 2 * 24, 24, 0, 0x1000, 0, 0x2000, 0, 1, 0, 0, 1, 0x1000, 0, 2, 0);
    MBI_ADD(14, 28, 1, 2, 3, 4, 5);
    MBI_ADD(0, 8);
    CHECK_EQ(parse(), 0);
    CHECK_EQ(info.mbi_start.v, 0x10000);
    CHECK_EQ(info.mbi_end.v, 0x10000 + mbi.total);
    CHECK_EQ(info.module_count, 1);
    CHECK_EQ(info.module[0].start.v, 0x300000);
    CHECK_EQ(info.module[0].end.v, 0x301234);
    CHECK_EQ(strcmp(info.module[0].name, "a"), 0);
    CHECK_EQ(info.mem_count, 2);
    CHECK_EQ(info.mem[0].bytes, 0x2000);
    CHECK_EQ(info.mem[1].start.v, 0x100000000);
    CHECK_EQ(info.mem[1].type, BOOT_MEM_RESERVED);
    CHECK_EQ(info.rsdp.v, 0x10000 + 8 + 16 + 24 + 64 + 8);
}

GUEST_TEST(boot_info_bad)
{
    mbi_start();
    CHECK_EQ(parse(), -EINVAL); // not even an end
    mbi.total = 0xffffffff;
    CHECK_EQ(parse(), -EINVAL);
    mbi_start();
    MBI_ADD(0, 8);
    CHECK_EQ(parse(), -ENOENT);
    mbi_start();
    MBI_ADD(1, 0, 0, 0); // a tag without a size would be read for ever
    CHECK_EQ(parse(), -ENOENT);
    mbi_start();
    MBI_ADD(6, 0x7fffffff, 24, 0); // a tag beyond the end
    CHECK_EQ(parse(), -ENOENT);
    mbi_start();
    MBI_ADD(6, 40, 0, 0, 0, 0, 1, 0, 1, 0); // entries without a size
    CHECK_EQ(parse(), -ENOENT);
    mbi_start();
    MBI_ADD(6, 12, 24, 0); // too short for its own head
    CHECK_EQ(parse(), -ENOENT);
    mbi_start();
    MBI_ADD(3, 16, 0x2000, 0x1000);          // a module that ends before it starts
    MBI_ADD(6, 39, 24, 0, 0, 0, 1, 0, 1, 0); // the last entry is not whole
    CHECK_EQ(parse(), -ENOENT);
    CHECK_EQ(info.module_count, 0);
    mbi_start();
    MBI_ADD(3, 16, 0x2000, 0x3000); // no name at all
    MBI_ADD(6, 40, 24, 0, 0, 0, 1, 0, 1, 0);
    mbi.total = 8 + 16 + 40; // and no end tag
    CHECK_EQ(parse(), 0);
    CHECK_EQ(info.module_count, 1);
    CHECK_EQ(info.module[0].name[0], 0);
    CHECK_EQ(info.mem_count, 1);
}

// True if the text is as expected, and its length as returned.
static bool printed(const char *buf, int len, const char *expected)
{
    if (strcmp(buf, expected) == 0 && (size_t)len == strlen(expected))
        return true;
    printk("  '%s' of length %d is not '%s'\n", buf, len, expected);
    return false;
}

GUEST_TEST(lib_printk)
{
    const char *volatile none = NULL; // the compiler would refuse a NULL that it sees
    char buf[64];

#define PRINTED(expected, ...) printed(buf, snprintk(buf, sizeof(buf), __VA_ARGS__), expected)
    CHECK(PRINTED("0 -1 4294967295 ffffffff", "%d %d %u %x", 0, -1, 0xffffffffu, 0xffffffffu));
    CHECK(PRINTED("-9223372036854775808", "%ld", INT64_MIN));
    CHECK(PRINTED("18446744073709551615 DEAD", "%lu %lX", UINT64_MAX, 0xdeadUL));
    CHECK(PRINTED("0123456789abcdef", "%016llx", 0x123456789abcdefULL));
    CHECK(PRINTED("[   42][42   ][00042][-0042]", "[%5d][%-5d][%05d][%05d]", 42, 42, 42, -42));
    CHECK(PRINTED("[  ab][ab  ][a][ab]", "[%4s][%-4s][%.1s][%.*s]", "ab", "ab", "ab", 9, "ab"));
    CHECK(PRINTED("x % 7 0x00000000000000ff", "%c %% %zu %p", 'x', (size_t)7, (void *)255));
    CHECK(PRINTED("(null)", "%s", none));
    CHECK_EQ(snprintk(buf, 4, "%s", "abcdef"), 6);
    CHECK_EQ(strcmp(buf, "abc"), 0);
    CHECK_EQ(snprintk(NULL, 0, "%d", 123), 3);
#undef PRINTED
}

GUEST_TEST(lib_string)
{
    char buf[32] = "0123456789abcdefghij";

    memmove(buf + 2, buf, 10); // overlapping, upwards
    CHECK_EQ(strcmp(buf, "010123456789cdefghij"), 0);
    memmove(buf, buf + 2, 10); // and back
    CHECK_EQ(strcmp(buf, "012345678989cdefghij"), 0);
    memset(buf, 'x', 11);
    CHECK_EQ(strncmp(buf, "xxxxxxxxxxx9", 12), 0);
    CHECK(memcmp("a\x80", "a\x7f", 2) > 0);
    CHECK(strcmp("a", "ab") < 0);
    CHECK_EQ(strncmp("abc", "abd", 2), 0);
    CHECK_EQ(string_copy(buf, "hello", 4), 5);
    CHECK_EQ(strcmp(buf, "hel"), 0);
    CHECK(strchr("abc", 'c') != NULL && strchr("abc", 'd') == NULL);
    CHECK_EQ(strcmp(error_name(-ENOMEM), "ENOMEM"), 0);
    CHECK_EQ(strcmp(error_name(0), "OK"), 0);
    CHECK_EQ(strcmp(error_name(-1000), "unknown error"), 0);
}
