/* Faults with precise places: instructions that mean nothing, jumps to nowhere, pages that may not be touched so. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static sigjmp_buf back;
static char *page;
extern char illegal[], breaking[];

static void on_fault(int number, siginfo_t *info, void *context) {
    unsigned long *registers = ((ucontext_t *)context)->uc_mcontext.__gregs;
    unsigned long pc = registers[0], address = (unsigned long)info->si_addr, base = (unsigned long)page;
    const char *at = pc == (unsigned long)illegal    ? "illegal"
                     : pc == (unsigned long)breaking ? "breaking"
                     : pc == base                    ? "page"
                     : pc == base + 16               ? "page + 16"
                     : pc == 0x1000                  ? "0x1000"
                                                     : "code";
    printf("signal %d code %d pc %s address", number, info->si_code, at);
    if (address == pc) puts(" pc");
    else if (address >= base && address < base + 8192) printf(" page + %lu\n", address - base);
    else printf(" %lx\n", address);
    siglongjmp(back, 1);
}

#define TRY(what)                                                                                                      \
    do {                                                                                                               \
        printf("%s: ", #what);                                                                                         \
        if (!sigsetjmp(back, 1)) {                                                                                     \
            what;                                                                                                      \
            puts("nothing happened");                                                                                  \
        }                                                                                                              \
    } while (0)

__attribute__((noinline, noclone)) static void meaningless(void) { __asm__ volatile(".globl illegal\nillegal: .word 0xffffffff"); }
__attribute__((noinline, noclone)) static void breakpoint(void) { __asm__ volatile(".globl breaking\nbreaking: ebreak"); }
static void jump(uintptr_t to) { ((void (*)(void))to)(); }
static void put(uint64_t *place) { *(volatile uint64_t *)place = 1; }
static uint64_t take(uint64_t *place) { return *(volatile uint64_t *)place; }

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    for (int i = 0; i < 4; i++) sigaction(numbers[i], &action, NULL);
    page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    TRY(meaningless());
    TRY(breakpoint());
    TRY(jump(0x1000));
    TRY(jump((uintptr_t)page)); /* readable, not executable */
    TRY(put((uint64_t *)(page + 4096)));
    TRY(take((uint64_t *)(page + 4096)));
    mprotect(page, 4096, PROT_READ);
    TRY(put((uint64_t *)(page + 8)));
    TRY(take((uint64_t *)(page + 8)));
    mprotect(page, 4096, PROT_NONE);
    TRY(take((uint64_t *)(page + 24)));
    mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    memset(page, 0, 4096);
    for (int i = 0; i < 4; i++) ((uint32_t *)page)[i] = 0x00000013; /* nop */
    __builtin___clear_cache(page, page + 4096);
    TRY(jump((uintptr_t)page)); /* runs into zeros */
    fflush(stdout);
    signal(SIGILL, SIG_DFL);
    meaningless();
    return 0;
}
