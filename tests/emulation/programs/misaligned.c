/* Misaligned accesses of every size, across pages too, as Linux on RISC-V lets programs make them. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define ACCESS(name, type)                                                                                             \
    __attribute__((noinline)) static uint64_t name(char *base) {                                                       \
        uint64_t sum = 0;                                                                                              \
        for (int offset = 0; offset < 16; offset++) {                                                                  \
            type value;                                                                                                \
            __asm__ volatile("" ::: "memory");                                                                         \
            value = *(volatile type *)(base + offset);                                                                 \
            sum = sum * 31 + (uint64_t)value;                                                                          \
            *(volatile type *)(base + offset) = (type)(value + 0x0102030405060708);                                    \
        }                                                                                                              \
        return sum;                                                                                                    \
    }
ACCESS(halves, int16_t)
ACCESS(words, int32_t)
ACCESS(doubles, int64_t)
ACCESS(unsigned_words, uint32_t)

int main(void) {
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int place = 0; place < 2; place++) {
        char *base = place ? pages + 4096 - 9 : pages + 64;
        for (int i = 0; i < 32; i++) base[i] = (char)(i * 37 + 11);
        printf("%016lx", halves(base));
        printf(" %016lx", words(base));
        printf(" %016lx", doubles(base));
        printf(" %016lx", unsigned_words(base));
        uint64_t digest = 0;
        for (int i = 0; i < 32; i++) digest = digest * 31 + (unsigned char)base[i];
        printf(" %016lx\n", digest);
    }
    volatile double *odd = (double *)(pages + 4091);
    *odd = 1.25;
    *odd += *(volatile float *)(pages + 1) + 2;
    printf("%g\n", *odd);
    return 0;
}
