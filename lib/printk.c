// SPDX-License-Identifier: BSD-2-Clause
// The formatter behind printk and snprintk.
#include "lib/printk.h"

#include "lib/string.h"

// Where the text goes: a buffer that is cut at its end, or one that is emptied onto the console
// when full.
struct sink {
    char *buf;
    size_t size;
    size_t used;                                // bytes in buf
    size_t total;                               // bytes of text so far
    void (*flush)(const char *buf, size_t len); // NULL: cut
};

struct spec {
    bool left, zero;
    int width;
    int precision; // -1: none
    int longs;     // 0 int, 1 and more 64 bits, -1 short, -2 char
};

static void put(struct sink *s, char c)
{
    s->total++;
    if (s->used == s->size && s->flush != NULL) {
        s->flush(s->buf, s->used);
        s->used = 0;
    }
    if (s->used < s->size)
        s->buf[s->used++] = c;
}

static void put_padding(struct sink *s, char c, int count)
{
    while (count-- > 0)
        put(s, c);
}

static void put_string(struct sink *s, const struct spec *spec, const char *text)
{
    size_t len = 0;

    if (text == NULL)
        text = "(null)";
    // With a precision the string need not have an end.
    while ((spec->precision < 0 || len < (size_t)spec->precision) && text[len] != '\0')
        len++;
    if (!spec->left)
        put_padding(s, ' ', spec->width - (int)len);
    for (size_t i = 0; i < len; i++)
        put(s, text[i]);
    if (spec->left)
        put_padding(s, ' ', spec->width - (int)len);
}

static void put_number(struct sink *s, const struct spec *spec, uint64_t value, unsigned base,
                       const char *prefix, bool upper)
{
    const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    char text[24];
    int len = 0, prefix_len = (int)strlen(prefix), padding;

    do {
        text[len++] = digits[value % base];
        value /= base;
    } while (value != 0);
    padding = spec->width - len - prefix_len;
    if (!spec->left && !spec->zero)
        put_padding(s, ' ', padding);
    while (*prefix != '\0')
        put(s, *prefix++);
    if (!spec->left && spec->zero)
        put_padding(s, '0', padding);
    while (len > 0)
        put(s, text[--len]);
    if (spec->left)
        put_padding(s, ' ', padding);
}

static const char *parse_spec(const char *p, struct spec *spec, va_list *args)
{
    *spec = (struct spec){.precision = -1};
    for (; *p == '-' || *p == '0' || *p == '#' || *p == '+' || *p == ' '; p++) {
        spec->left |= *p == '-';
        spec->zero |= *p == '0';
    }
    if (*p == '*') {
        spec->width = va_arg(*args, int);
        p++;
    }
    for (; *p >= '0' && *p <= '9'; p++)
        spec->width = spec->width * 10 + (*p - '0');
    if (spec->width < 0) {
        spec->left = true;
        spec->width = -spec->width;
    }
    if (*p == '.') {
        p++;
        spec->precision = 0;
        if (*p == '*') {
            spec->precision = va_arg(*args, int);
            p++;
        }
        for (; *p >= '0' && *p <= '9'; p++)
            spec->precision = spec->precision * 10 + (*p - '0');
    }
    for (; *p == 'l' || *p == 'z' || *p == 'h'; p++)
        spec->longs += *p == 'h' ? -1 : 1;
    return p;
}

static void put_signed(struct sink *s, const struct spec *spec, va_list *args)
{
    int64_t value = spec->longs > 0 ? va_arg(*args, int64_t) : va_arg(*args, int);

    if (spec->longs == -1)
        value = (short)value;
    else if (spec->longs <= -2)
        value = (signed char)value;
    // Negated as unsigned: the smallest number has no positive counterpart.
    put_number(s, spec, value < 0 ? -(uint64_t)value : (uint64_t)value, 10, value < 0 ? "-" : "",
               false);
}

static void put_unsigned(struct sink *s, const struct spec *spec, va_list *args, char conversion)
{
    uint64_t value = spec->longs > 0 ? va_arg(*args, uint64_t) : va_arg(*args, unsigned);
    unsigned base = conversion == 'u' ? 10 : conversion == 'o' ? 8 : 16;

    if (spec->longs == -1)
        value = (unsigned short)value;
    else if (spec->longs <= -2)
        value = (unsigned char)value;
    put_number(s, spec, value, base, "", conversion == 'X');
}

static void put_pointer(struct sink *s, const struct spec *spec, va_list *args)
{
    struct spec fixed = *spec;

    fixed.zero = true;
    fixed.width = 18;
    put_number(s, &fixed, (uintptr_t)va_arg(*args, void *), 16, "0x", false);
}

// One conversion, p just behind its %. Returns where the text goes on.
static const char *put_conversion(struct sink *s, const char *p, va_list *args)
{
    const char *start = p;
    struct spec spec;

    p = parse_spec(p, &spec, args);
    switch (*p) {
    case 'd':
    case 'i':
        put_signed(s, &spec, args);
        return p + 1;
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        put_unsigned(s, &spec, args, *p);
        return p + 1;
    case 'c':
        put_string(s, &(struct spec){.left = spec.left, .width = spec.width, .precision = 1},
                   (char[]){(char)va_arg(*args, int), '\0'});
        return p + 1;
    case 's':
        put_string(s, &spec, va_arg(*args, const char *));
        return p + 1;
    case 'p':
        put_pointer(s, &spec, args);
        return p + 1;
    case '%':
        put(s, '%');
        return p + 1;
    default:
        put(s, '%');
        return start;
    }
}

static void format(struct sink *s, const char *fmt, va_list args)
{
    va_list copy; // its address is passed on, which a va_list parameter's is not

    va_copy(copy, args);
    while (*fmt != '\0') {
        if (*fmt == '%')
            fmt = put_conversion(s, fmt + 1, &copy);
        else
            put(s, *fmt++);
    }
    va_end(copy);
}

int vsnprintk(char *buf, size_t size, const char *fmt, va_list args)
{
    struct sink s = {.buf = buf, .size = size > 0 ? size - 1 : 0};

    format(&s, fmt, args);
    if (size > 0)
        buf[s.used] = '\0';
    return (int)s.total;
}

int snprintk(char *buf, size_t size, const char *fmt, ...)
{
    va_list args;
    int len;

    va_start(args, fmt);
    len = vsnprintk(buf, size, fmt, args);
    va_end(args);
    return len;
}

const struct console *printk_console;

void vprintk(const char *fmt, va_list args)
{
    const struct console *console = printk_console;
    char buf[128];
    struct sink s = {.buf = buf, .size = sizeof(buf)};
    bool alone;

    if (console == NULL)
        return;
    s.flush = console->write;
    alone = console->begin();
    format(&s, fmt, args);
    console->write(buf, s.used);
    console->end(alone);
}

void printk(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vprintk(fmt, args);
    va_end(args);
}
