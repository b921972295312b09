/* Calls what examples/codec.c exports and prints the results; linked with an object made from it. */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct { uint32_t time; uint16_t channel; int32_t reading; } Sample;
typedef int (*Compare)(const Sample *left, const Sample *right);
typedef struct { char name[12]; int32_t value; bool used; } Parameter;
typedef struct { Parameter slots[32]; unsigned used; } Table;
typedef struct {
    int kind;
    union {
        bool truth;
        int64_t integer;
        int32_t fixed;
        struct { const uint8_t *start; size_t size; } text;
        size_t count;
    } as;
} Value;

uint32_t crc32(uint32_t crc, const uint8_t *data, size_t size);
uint32_t reverse_bits(uint32_t value);
int32_t fixed_multiply(int32_t left, int32_t right);
int32_t fixed_divide(int32_t left, int32_t right);
uint32_t fixed_square_root(uint32_t value);
size_t write_values(uint8_t *data, size_t capacity, const char *format, ...);
size_t read_value(const uint8_t *in, size_t size, Value *value);
size_t skip_value(const uint8_t *in, size_t size);
size_t compress(const uint8_t *in, size_t size, uint8_t *data, size_t capacity);
size_t decompress(const uint8_t *in, size_t size, uint8_t *data, size_t capacity);
Parameter *find_parameter(Table *table, const char *name, bool create);
bool run_command(Table *table, const char *line);
int by_time(const Sample *left, const Sample *right);
int by_channel(const Sample *left, const Sample *right);
void sort_samples(Sample *samples, size_t count, Compare compare);

static void check_numbers(void)
{
    printf("crc32 %08" PRIx32 "\n", crc32(0, (const uint8_t *)"123456789", 9));
    printf("reverse_bits %08" PRIx32 "\n", reverse_bits(0x12345678));
    printf("fixed_multiply %" PRId32, fixed_multiply(0x18000, -0x20000));
    printf(" %" PRId32 "\n", fixed_multiply(INT32_MAX, INT32_MAX));
    printf("fixed_divide %" PRId32, fixed_divide(0x10000, 0x30000));
    printf(" %" PRId32 " %" PRId32 "\n", fixed_divide(-1, 0), fixed_divide(INT32_MAX, 1));
    printf("fixed_square_root %" PRIu32, fixed_square_root(2 << 16));
    printf(" %" PRIu32 "\n", fixed_square_root(UINT32_MAX));
}

static void check_values(void)
{
    uint8_t data[256];
    size_t size = write_values(data, sizeof data, "{3sisfs[4nbi{0", "count", (int64_t)-1000000, "gain", (int32_t)-98304,
                               "list", 1, (int64_t)23);
    printf("write_values %zu crc %08" PRIx32 "\n", size, crc32(0, data, size));
    printf("write_values too small %zu", write_values(data + 200, 3, "s", "long"));
    printf(", unknown %zu\n", write_values(data + 200, 9, "?"));
    printf("skip_value %zu, cut off %zu\n", skip_value(data, size), skip_value(data, size - 1));
    for (size_t at = 0, used; at < size; at += used) {
        Value value;
        used = read_value(data + at, size - at, &value);
        if (used == 0)
            break;
        printf("  kind %d size %zu", value.kind, used);
        switch (value.kind) {
        case 1: printf(" %s", value.as.truth ? "true" : "false"); break;
        case 2: printf(" %" PRId64, value.as.integer); break;
        case 3: printf(" %d/65536", (int)value.as.fixed); break;
        case 4: printf(" '%.*s'", (int)value.as.text.size, (const char *)value.as.text.start); break;
        default: printf(" %zu", value.kind > 4 ? value.as.count : 0);
        }
        putchar('\n');
    }
    memset(data, 0x81, sizeof data);
    printf("skip_value of nested arrays %zu\n", skip_value(data, sizeof data));
}

static void check_compression(void)
{
    static const char text[] = "the quick brown fox ";
    static uint8_t in[4000], packed[5000], out[4000];
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof in; i++) {
        seed = seed * 1103515245 + 12345;
        in[i] = i > 1000 && i < 1300 ? (uint8_t)(seed >> 16) : (uint8_t)text[(i + (seed >> 28 == 0)) % 20];
    }
    size_t size = compress(in, sizeof in, packed, sizeof packed);
    size_t back = decompress(packed, size, out, sizeof out);
    printf("compress %zu crc %08" PRIx32, size, crc32(0, packed, size));
    printf(", decompress %zu %s\n", back, memcmp(in, out, back) ? "differs" : "same");
    printf("no room %zu", compress(in, sizeof in, packed + 4000, 10));
    printf(" %zu", decompress(packed, size, out, 100));
    printf(", cut off %zu", decompress(packed, size - 1, out, sizeof out));
    printf(", too far %zu\n", decompress((const uint8_t *)"\x80\0\1", 3, out, sizeof out));
}

static void check_console(void)
{
    static const char *const lines[] = {
        "rate = 250", "gain=-1.5 # dB", "", "  # nothing",         "offset = 0.125", "rate = 40000", "rate",
        "Rate = 1",   "gain = 1.2.3",   "a_very_long_name = 1", "x = -",          "y = 1 2",      "gain = 7.",
    };
    static Table table;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        printf("%d", run_command(&table, lines[i]));
    printf("\nrate %" PRId32, find_parameter(&table, "rate", false)->value);
    printf(" gain %" PRId32, find_parameter(&table, "gain", false)->value);
    printf(" offset %" PRId32 "\n", find_parameter(&table, "offset", false)->value);
    unsigned made = 0;
    for (char first = 'a'; first <= 'c'; first++)
        for (char name[] = {first, 'a', 0}; name[1] <= 'z'; name[1]++)
            made += find_parameter(&table, name, true) != NULL;
    printf("made %u, used %u", made, table.used);
    printf(", found %d", find_parameter(&table, "ab", false) != NULL);
    printf(" %d\n", find_parameter(&table, "missing", false) != NULL);
}

static void check_sorting(void)
{
    Sample samples[40];
    uint32_t seed = 7;
    for (unsigned i = 0; i < 40; i++) {
        seed = seed * 1664525 + 1013904223;
        samples[i] = (Sample){seed >> 20, (uint16_t)(seed >> 10 & 3), (int32_t)seed};
    }
    sort_samples(samples, 40, by_time);
    bool sorted = true;
    for (unsigned i = 1; i < 40; i++)
        sorted &= by_time(&samples[i - 1], &samples[i]) <= 0;
    printf("sorted by time %d, first %u", sorted, (unsigned)samples[0].time);
    sort_samples(samples, 40, by_channel);
    for (unsigned i = 1; i < 40; i++)
        sorted &= by_channel(&samples[i - 1], &samples[i]) <= 0;
    printf(", by channel %d, last %u of %u\n", sorted, (unsigned)samples[39].time, samples[39].channel);
}

int main(void)
{
    check_numbers();
    check_values();
    check_compression();
    check_console();
    check_sorting();
    return 0;
}
