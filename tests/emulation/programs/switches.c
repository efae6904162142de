/* Where code goes by computed jumps: a big switch, labels as values, tables of functions. */
#include <stdint.h>
#include <stdio.h>

#define CASE(n) case n: state = state * (2 * n + 1) + n; break;
#define CASES8(n) CASE(n) CASE(n + 1) CASE(n + 2) CASE(n + 3) CASE(n + 4) CASE(n + 5) CASE(n + 6) CASE(n + 7)

__attribute__((noinline)) static uint64_t big(uint64_t state, int which) {
    switch (which) {
        CASES8(0) CASES8(8) CASES8(16) CASES8(24) CASES8(32) CASES8(40) CASES8(48) CASES8(56)
    case 1000: state ^= 0x5555; break;
    default: state += 3;
    }
    return state;
}

static uint64_t labels(const unsigned char *code) {
    static const void *const where[] = {&&increment, &&twice, &&exclusive, &&repeat, &&end};
    uint64_t value = 1;
    int left = 2000;
    const unsigned char *at = code;
    goto *where[*at];
increment: value++; goto *where[*++at];
twice: value *= 2; goto *where[*++at];
exclusive: value ^= value >> 7; goto *where[*++at];
repeat: at = left-- ? code : at + 1; goto *where[*at];
end: return value;
}

typedef uint64_t (*Function)(uint64_t);
static uint64_t f0(uint64_t x) { return x + 1; }
static uint64_t f1(uint64_t x) { return x * 3; }
static uint64_t f2(uint64_t x) { return x ^ x >> 3; }
static uint64_t f3(uint64_t x) { return x << 1 | x >> 63; }
static Function const table[] = {f0, f1, f2, f3};

int main(void) {
    uint64_t state = 1;
    for (int i = 0; i < 20000; i++) state = big(state, i * 7 % 70);
    printf("%016lx %016lx\n", state, big(state, 1000));
    static const unsigned char code[] = {0, 1, 2, 0, 0, 2, 3, 4};
    printf("%016lx\n", labels(code));
    for (int i = 0; i < 20000; i++) state = table[(state >> 5) & 3](state);
    printf("%016lx\n", state);
    return 0;
}
