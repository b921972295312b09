/* A telemetry codec for a small device, in one file and without a C library.
 *
 * Messages are tagged values (a subset of CBOR), compressed by matching repeated strings and checked
 * by a CRC. A text console sets parameters (`rate = 250`, `gain = -1.5`). Samples are sorted; all
 * arithmetic on readings is 16.16 fixed point.
 *
 * Writers return the number of bytes written and readers the number of bytes used; 0 means the input
 * is malformed or the output full.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct { uint8_t *data; size_t size, capacity; bool overflowed; } Buffer;

typedef enum { KIND_NULL, KIND_BOOL, KIND_INT, KIND_FIXED, KIND_TEXT, KIND_ARRAY, KIND_MAP } Kind;

typedef struct {
    Kind kind;
    union {
        bool truth;
        int64_t integer;
        int32_t fixed;
        struct { const uint8_t *start; size_t size; } text;
        size_t count; /* elements of an array, pairs of a map */
    } as;
} Value;

typedef struct { uint32_t time; uint16_t channel; int32_t reading; } Sample;

typedef int (*Compare)(const Sample *left, const Sample *right);

enum { SLOTS = 32, NAME_SIZE = 12, DEPTH_LIMIT = 16, WINDOW_BITS = 8, MIN_MATCH = 4, MAX_MATCH = 130 };

typedef struct { char name[NAME_SIZE]; int32_t value; bool used; } Parameter;
typedef struct { Parameter slots[SLOTS]; unsigned used; } Table;

/* Checksums and bits */

uint32_t crc32(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1));
    }
    return ~crc;
}

/* For ports that send the lowest bit first. */
uint32_t reverse_bits(uint32_t value)
{
    value = (value & 0x55555555u) << 1 | (value >> 1 & 0x55555555u);
    value = (value & 0x33333333u) << 2 | (value >> 2 & 0x33333333u);
    value = (value & 0x0F0F0F0Fu) << 4 | (value >> 4 & 0x0F0F0F0Fu);
    return value << 24 | (value & 0xFF00u) << 8 | (value >> 8 & 0xFF00u) | value >> 24;
}

/* Fixed point, 16.16, saturating */

static int32_t saturate(int64_t value)
{
    return value > INT32_MAX ? INT32_MAX : value < INT32_MIN ? INT32_MIN : (int32_t)value;
}

int32_t fixed_multiply(int32_t left, int32_t right)
{
    int64_t product = (int64_t)left * right;
    return saturate((product + (product < 0 ? -0x8000 : 0x8000)) / 0x10000);
}

int32_t fixed_divide(int32_t left, int32_t right)
{
    if (right == 0)
        return left < 0 ? INT32_MIN : INT32_MAX;
    return saturate((int64_t)left * 0x10000 / right);
}

uint32_t fixed_square_root(uint32_t value)
{
    uint64_t rest = (uint64_t)value << 16, root = 0, bit = (uint64_t)1 << 46;
    while (bit > rest)
        bit >>= 2;
    for (; bit; bit >>= 2) {
        if (rest >= root + bit) {
            rest -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return (uint32_t)root;
}

/* Buffers */

static void put(Buffer *out, unsigned byte)
{
    if (out->size < out->capacity)
        out->data[out->size++] = (uint8_t)byte;
    else
        out->overflowed = true;
}

static void put_big_endian(Buffer *out, uint64_t value, unsigned bytes)
{
    while (bytes--)
        put(out, (unsigned)(value >> 8 * bytes) & 0xFF);
}

static void put_head(Buffer *out, unsigned major, uint64_t argument)
{
    major <<= 5;
    if (argument < 24) {
        put(out, major | (unsigned)argument);
        return;
    }
    unsigned power = argument <= UINT8_MAX ? 0 : argument <= UINT16_MAX ? 1 : argument <= UINT32_MAX ? 2 : 3;
    put(out, major | (24 + power));
    put_big_endian(out, argument, 1u << power);
}

/* Tagged values: the format string holds i (int), f (fixed), b (bool), s (text), n (null) and
 * `[`, `{` with a count, such as "{2sisf". */
size_t write_values(uint8_t *data, size_t capacity, const char *format, ...)
{
    Buffer out = {data, 0, capacity, false};
    va_list arguments;
    va_start(arguments, format);
    for (; *format; format++) {
        switch (*format) {
        case 'n': put(&out, 0xF6); break;
        case 'b': put(&out, va_arg(arguments, int) ? 0xF5 : 0xF4); break;
        case 'f':
            put(&out, 0xFA);
            put_big_endian(&out, (uint32_t)va_arg(arguments, int32_t), 4);
            break;
        case 'i': {
            int64_t value = va_arg(arguments, int64_t);
            put_head(&out, value < 0, value < 0 ? (uint64_t)~value : (uint64_t)value);
            break;
        }
        case 's': {
            const char *text = va_arg(arguments, const char *);
            size_t size = 0;
            while (text[size])
                size++;
            put_head(&out, 3, size);
            while (*text)
                put(&out, (uint8_t)*text++);
            break;
        }
        case '[':
        case '{': {
            unsigned major = *format == '[' ? 4 : 5, count = 0;
            while (format[1] >= '0' && format[1] <= '9')
                count = count * 10 + (unsigned)(*++format - '0');
            put_head(&out, major, count);
            break;
        }
        default: out.overflowed = true;
        }
    }
    va_end(arguments);
    return out.overflowed ? 0 : out.size;
}

size_t read_value(const uint8_t *in, size_t size, Value *value)
{
    if (size == 0)
        return 0;
    unsigned major = in[0] >> 5, low = in[0] & 31;
    size_t used = 1;
    uint64_t argument = low;
    if (low >= 28)
        return 0;
    if (low >= 24) {
        size_t extra = (size_t)1 << (low - 24);
        if (size < 1 + extra)
            return 0;
        for (argument = 0; used <= extra; used++)
            argument = argument << 8 | in[used];
    }
    switch (major) {
    case 0:
    case 1:
        if (argument > INT64_MAX)
            return 0;
        *value = (Value){KIND_INT, {.integer = major ? ~(int64_t)argument : (int64_t)argument}};
        return used;
    case 3:
        if (argument > size - used)
            return 0;
        *value = (Value){KIND_TEXT, {.text = {in + used, (size_t)argument}}};
        return used + (size_t)argument;
    case 4:
    case 5:
        if (argument > size)
            return 0;
        *value = (Value){major == 4 ? KIND_ARRAY : KIND_MAP, {.count = (size_t)argument}};
        return used;
    case 7:
        switch (low) {
        case 20:
        case 21: *value = (Value){KIND_BOOL, {.truth = low == 21}}; return used;
        case 22: *value = (Value){KIND_NULL, {0}}; return used;
        case 26: *value = (Value){KIND_FIXED, {.fixed = (int32_t)(uint32_t)argument}}; return used;
        default: return 0;
        }
    default: return 0;
    }
}

/* The size of one whole value with all it holds. */
static size_t skip(const uint8_t *in, size_t size, unsigned depth)
{
    Value value;
    size_t used = read_value(in, size, &value);
    if (used == 0 || depth == 0)
        return 0;
    if (value.kind != KIND_ARRAY && value.kind != KIND_MAP)
        return used;
    for (size_t left = value.as.count * (value.kind == KIND_MAP ? 2 : 1); left; left--) {
        size_t inner = skip(in + used, size - used, depth - 1);
        if (inner == 0)
            return 0;
        used += inner;
    }
    return used;
}

size_t skip_value(const uint8_t *in, size_t size) { return skip(in, size, DEPTH_LIMIT); }

/* Compression: a control byte below 128 counts literals, above it the length of a match, whose
 * 16-bit distance follows. */

static unsigned window_slot(const uint8_t *at)
{
    uint32_t key = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    return key * 2654435761u >> (32 - WINDOW_BITS);
}

static void put_literals(Buffer *out, const uint8_t *from, const uint8_t *to)
{
    while (from < to) {
        size_t run = (size_t)(to - from) < 128 ? (size_t)(to - from) : 128;
        put(out, (unsigned)run - 1);
        while (run--)
            put(out, *from++);
    }
}

size_t compress(const uint8_t *in, size_t size, uint8_t *data, size_t capacity)
{
    Buffer out = {data, 0, capacity, false};
    size_t last[1 << WINDOW_BITS] = {0}; /* position + 1 of the latest string with that hash */
    size_t at = 0, literals = 0;
    while (size >= MIN_MATCH && at <= size - MIN_MATCH) {
        size_t *slot = &last[window_slot(in + at)], candidate = *slot, length = 0;
        *slot = at + 1;
        if (candidate && at + 1 - candidate <= UINT16_MAX) {
            size_t most = size - at < MAX_MATCH ? size - at : MAX_MATCH;
            while (length < most && in[candidate - 1 + length] == in[at + length])
                length++;
        }
        if (length < MIN_MATCH) {
            at++;
            continue;
        }
        put_literals(&out, in + literals, in + at);
        put(&out, 128 + (unsigned)length - MIN_MATCH);
        put_big_endian(&out, at + 1 - candidate, 2);
        at += length;
        literals = at;
    }
    put_literals(&out, in + literals, in + size);
    return out.overflowed ? 0 : out.size;
}

size_t decompress(const uint8_t *in, size_t size, uint8_t *data, size_t capacity)
{
    Buffer out = {data, 0, capacity, false};
    for (size_t at = 0; at < size;) {
        unsigned control = in[at++];
        if (control < 128) {
            if (control >= size - at)
                return 0;
            for (unsigned i = 0; i <= control; i++)
                put(&out, in[at++]);
        } else {
            if (size - at < 2)
                return 0;
            size_t distance = (size_t)in[at] << 8 | in[at + 1];
            at += 2;
            if (distance == 0 || distance > out.size)
                return 0;
            for (unsigned left = control - 128 + MIN_MATCH; left && !out.overflowed; left--)
                put(&out, data[out.size - distance]);
        }
    }
    return out.overflowed ? 0 : out.size;
}

/* Parameters: a hash table with open addressing, and the console that fills it */

Parameter *find_parameter(Table *table, const char *name, bool create)
{
    uint32_t hash = 2166136261u;
    for (const char *at = name; *at; at++)
        hash = (hash ^ (uint8_t)*at) * 16777619u;
    for (unsigned probe = 0; probe < SLOTS; probe++) {
        Parameter *slot = &table->slots[(hash + probe) % SLOTS];
        if (!slot->used) {
            if (!create || table->used == SLOTS - 1)
                return NULL;
            *slot = (Parameter){.used = true};
            for (unsigned i = 0; i < NAME_SIZE - 1 && name[i]; i++)
                slot->name[i] = name[i];
            table->used++;
            return slot;
        }
        unsigned i = 0;
        while (i < NAME_SIZE - 1 && name[i] && slot->name[i] == name[i])
            i++;
        if (slot->name[i] == name[i])
            return slot;
    }
    return NULL;
}

/* One console line, `name = -12.5`; comments begin with '#'. */
bool run_command(Table *table, const char *line)
{
    enum { START, NAME, EQUALS, NUMBER, FRACTION, DONE } state = START;
    char name[NAME_SIZE] = {0};
    unsigned length = 0;
    int64_t value = 0, fraction = 0, power = 1;
    bool negative = false, digits = false;
    for (;; line++) {
        char c = *line;
        bool end = c == 0 || c == '#' || c == '\n', blank = c == ' ' || c == '\t', digit = c >= '0' && c <= '9';
        switch (state) {
        case START:
            if (end)
                return true;
            if (blank)
                break;
            state = NAME;
            /* fall through */
        case NAME:
            if (c == '=' && length) {
                state = EQUALS;
            } else if ((c >= 'a' && c <= 'z') || c == '_') {
                if (length == NAME_SIZE - 1)
                    return false;
                name[length++] = c;
            } else if (!blank) {
                return false;
            }
            break;
        case EQUALS:
            if (blank)
                break;
            state = NUMBER;
            if (c == '-') {
                negative = true;
                break;
            }
            /* fall through */
        case NUMBER:
        case FRACTION:
            if (digit && state == NUMBER) {
                value = saturate(value * 10 + (c - '0') * (int64_t)0x10000);
            } else if (digit && power < 1000000000) {
                fraction = fraction * 10 + (c - '0');
                power *= 10;
            } else if (digit) {
                break; /* below the last bit */
            } else if (c == '.' && state == NUMBER) {
                state = FRACTION;
            } else if (blank || end) {
                state = DONE;
            } else {
                return false;
            }
            digits |= digit;
            break;
        case DONE:
            if (!blank && !end)
                return false;
        }
        if (end) {
            Parameter *slot = state == DONE && digits ? find_parameter(table, name, true) : NULL;
            value = saturate(value + (fraction * 0x10000 + power / 2) / power);
            if (slot)
                slot->value = (int32_t)(negative ? -value : value);
            return slot != NULL;
        }
    }
}

/* Samples */

int by_time(const Sample *left, const Sample *right) { return (left->time > right->time) - (left->time < right->time); }

int by_channel(const Sample *left, const Sample *right)
{
    return left->channel != right->channel ? left->channel - right->channel : by_time(left, right);
}

static void sift_down(Sample *samples, size_t root, size_t count, Compare compare)
{
    Sample moving = samples[root];
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && compare(&samples[child], &samples[child + 1]) < 0)
            child++;
        if (compare(&moving, &samples[child]) >= 0)
            break;
        samples[root] = samples[child];
    }
    samples[root] = moving;
}

void sort_samples(Sample *samples, size_t count, Compare compare)
{
    for (size_t root = count / 2; root--;)
        sift_down(samples, root, count, compare);
    for (size_t end = count; end-- > 1;) {
        Sample largest = samples[0];
        samples[0] = samples[end];
        samples[end] = largest;
        sift_down(samples, 0, end, compare);
    }
}
