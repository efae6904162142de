/* Generated code: written, flushed, run, written anew; in pages that are writable and executable, and in turn. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

typedef long (*Function)(long);

static void emit(void *place, int addend) {
    uint32_t code[2] = {(uint32_t)addend << 20 | 0x00050513u, 0x00008067u}; /* addi a0, a0, addend; ret */
    memcpy(place, code, sizeof code);
    __builtin___clear_cache((char *)place, (char *)place + sizeof code);
}

int main(void) {
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Function function = (Function)page;
    long sum = 0;
    for (int round = 0; round < 300; round++) {
        emit(page, round);
        sum += function(1000);
    }
    printf("writable and executable: %ld\n", sum);

    sum = 0;
    for (int round = 0; round < 30; round++) {
        mprotect(page, 4096, PROT_READ | PROT_WRITE);
        emit(page, 2 * round);
        mprotect(page, 4096, PROT_READ | PROT_EXEC);
        sum += function(round);
    }
    printf("in turn: %ld\n", sum);

    mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
    for (int i = 0; i < 100; i++) emit(page + 4096 + 8 * i, i);
    sum = 0;
    for (int round = 0; round < 5; round++)
        for (int i = 0; i < 100; i++) sum += ((Function)(page + 4096 + 8 * i))(round);
    printf("many: %ld\n", sum);

    long results[3] = {0}; /* another mapping in the same place is other code */
    for (int round = 0; round < 3; round++) {
        munmap(page, 4096);
        page = mmap(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        emit(page, 100 * round + 1);
        results[round] = function(0);
    }
    printf("mapped anew: %ld %ld %ld\n", results[0], results[1], results[2]);

    uint32_t loop[] = {/* counts a0 down, and changes its own addend half way */
                       0x00000593u,  /*  0 li a1, 0 */
                       0x00158593u,  /*  4 addi a1, a1, 1 */
                       0xfff50513u,  /*  8 addi a0, a0, -1 */
                       0x03250263u,  /* 12 beq a0, s2, +36 (to 48) */
                       0xfe051ae3u,  /* 16 bnez a0, -12 (to 4) */
                       0x00058513u,  /* 20 mv a0, a1 */
                       0x00008067u}; /* 24 ret */
    loop[3] = 0x00000013u; /* nop: the change comes from outside, between two calls */
    memcpy(page, loop, sizeof loop);
    __builtin___clear_cache(page, page + sizeof loop);
    long first = function(2000);
    loop[1] = 0x00358593u; /* addi a1, a1, 3 */
    memcpy(page, loop, sizeof loop);
    __builtin___clear_cache(page, page + sizeof loop);
    printf("a hot loop: %ld, changed %ld\n", first, function(2000));
    return 0;
}
