/* Zstandard: text is compressed at two levels and decompressed again. */
#include <string.h>

#include "rounds.h"
#include "zstd.h"

enum { BYTES = 400000 };
static char text[BYTES], packed[BYTES * 2], again[BYTES];

static void write_text(void) {
    static const char *const words[] = {"guest", "host", "kernel", "process", "page", "fault", "trap", "the", "a", "of",
                                        "instruction", "address", "space", "translates", "runs", "and"};
    uint32_t seed = 1;
    for (size_t at = 0; at + 16 < BYTES;) {
        seed = seed * 1664525 + 1013904223; /* Numerical Recipes' linear congruential generator */
        const char *word = words[seed >> 28];
        size_t size = strlen(word);
        memcpy(text + at, word, size);
        at += size;
        text[at++] = (seed >> 20 & 15) ? ' ' : '\n';
    }
}

static uint64_t work(void) {
    uint64_t digest = 0;
    write_text();
    for (int level = 1; level <= 7; level += 6) {
        size_t size = ZSTD_compress(packed, sizeof packed, text, BYTES, level);
        if (ZSTD_isError(size)) return 0;
        if (ZSTD_decompress(again, BYTES, packed, size) != BYTES || memcmp(text, again, BYTES)) return 0;
        for (size_t i = 0; i < size; i++) digest = digest * 31 + (unsigned char)packed[i];
        digest ^= (uint64_t)size << 32;
    }
    return digest;
}
