/* What the start of a program finds: arguments, environment, auxiliary vector, clean registers, the time. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

int main(int count, char **words) {
    printf("%d words, the last is %s\n", count, words[count - 1]);
    printf("variable %s, environment %d\n", getenv("VARIABLE"), environ[0] != NULL);
    printf("page %lu, hwcap %lx, entry %d, secure %lu\n", getauxval(AT_PAGESZ), getauxval(AT_HWCAP) & 0x112d,
           getauxval(AT_ENTRY) != 0, getauxval(AT_SECURE));
    printf("random %d, name %s\n", getauxval(AT_RANDOM) != 0, strrchr((char *)getauxval(AT_EXECFN), '/') + 1);
    uint64_t cycles, later;
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    __asm__ volatile("rdcycle %0" : "=r"(cycles));
    usleep(2000);
    __asm__ volatile("rdcycle %0" : "=r"(later));
    clock_gettime(CLOCK_MONOTONIC, &after);
    long slept = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    printf("slept %d, cycles %d, stack aligned %d\n", slept >= 2000000, later > cycles,
           (uintptr_t)__builtin_frame_address(0) % 16 == 0);
    return 42;
}
