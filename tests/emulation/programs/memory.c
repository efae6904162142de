/* Address space: heap, mappings that come, move, shrink and go, sparse ones, the program's own view of it. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static sigjmp_buf back;
static void on_fault(int number) { siglongjmp(back, number); }
static int touch(volatile char *place) {
    int number = sigsetjmp(back, 1);
    if (!number) *place = 1;
    return number;
}

int main(void) {
    signal(SIGSEGV, on_fault);
    char *start = sbrk(0);
    printf("grown %d", sbrk(100000) == start);
    memset(start, 7, 100000);
    printf(" %d, shrunk %d\n", start[99999], brk(start) == 0);

    char *area = mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("below the end %d\n", (uintptr_t)area < (uintptr_t)1 << 38);
    for (int i = 0; i < 16; i++) area[i * 4096] = (char)i;
    munmap(area + 4 * 4096, 4 * 4096);
    printf("hole:");
    for (int i = 0; i < 16; i += 3) printf(" %d", touch(area + i * 4096));
    area = mremap(area, 4 * 4096, 64 * 4096, MREMAP_MAYMOVE);
    printf("\nmoved %d %d, new %d\n", area[4096], area[3 * 4096], touch(area + 60 * 4096));
    mprotect(area, 4096, PROT_READ);
    printf("read-only %d, next %d\n", touch(area), touch(area + 4096));

    size_t sparse = (size_t)4 << 30;
    char *wide = mmap(NULL, sparse, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (wide == MAP_FAILED) return 1;
    for (size_t at = 0; at < sparse; at += sparse / 8) wide[at] = (char)(at >> 29);
    int sum = 0;
    for (size_t at = 0; at < sparse; at += sparse / 8) sum += wide[at];
    printf("sparse %d\n", sum);
    munmap(wide, sparse);
    printf("gone %d\n", touch(wide));
    printf("beyond %d %d\n", mmap((void *)((uintptr_t)1 << 45), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED,
           touch((char *)((uintptr_t)1 << 40)));

    int found = 0, stack = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long low, high;
        if (sscanf(line, "%lx-%lx", &low, &high) != 2) continue;
        found += low <= (unsigned long)(void *)main && (unsigned long)(void *)main < high;
        stack += low <= (unsigned long)&found && (unsigned long)&found < high;
    }
    printf("own code %d, own stack %d\n", found, stack);
    void *pieces[500];
    for (int i = 0; i < 500; i++) memset(pieces[i] = malloc((size_t)i * 517 % 70000 + 1), i, (size_t)i * 517 % 70000 + 1);
    unsigned digest = 0;
    for (int i = 0; i < 500; i++) digest = digest * 31 + *(unsigned char *)pieces[i], free(pieces[i]);
    printf("pieces %08x\n", digest);
    return 0;
}
