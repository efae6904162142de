/* What a paravirtual domain's program sees of the way to its kernel: registers are its own after calls, faults and signals;
 * and what it can do by jumping into the hypervisor's pages, or returning nowhere, ends nobody but itself. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int ticks, beyond;

static void tick(int number) { (void)number; ticks++; }

static void leave(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] = 1ll << 62;
}

/* all registers around a call, or around a store to `page` */
static int spoiled(long call, char *page) {
    uint64_t bad;
    __asm__ volatile(
        "mov %[call], %%rax; mov %[page], %%rdi\n"
        "mov $0x1111, %%rbx; mov $0x2222, %%rdx; mov $0x3333, %%rsi; mov $0x4444, %%r8; mov $0x5555, %%r9\n"
        "mov $0x6666, %%r10; mov $0x7777, %%r12; mov $0x8888, %%r13; mov $0x9999, %%r14; mov $0xaaaa, %%r15\n"
        "movq %%r15, %%xmm5; std; stc\n"
        "test %%rdi, %%rdi; stc; jz 1f; mov $0xbbbb, %%r11; mov $0xcccc, %%rcx; movb $1, (%%rdi)\n"
        "setnc %%al; cmp $0xbbbb, %%r11; setne %%r11b; or %%r11b, %%al; cmp $0xcccc, %%rcx; jmp 2f\n"
        "1: lea 3f(%%rip), %%r11; push %%r11; syscall; 3: setnc %%al; pop %%r11; cmp %%r11, %%rcx\n"
        "2: setne %%cl; or %%cl, %%al; pushfq; pop %%rcx; bt $10, %%rcx; setnc %%cl; or %%cl, %%al; cld\n"
        "cmp $0x1111, %%rbx; setne %%cl; or %%cl, %%al; cmp $0x2222, %%rdx; setne %%cl; or %%cl, %%al\n"
        "cmp $0x3333, %%rsi; setne %%cl; or %%cl, %%al; cmp $0x4444, %%r8; setne %%cl; or %%cl, %%al\n"
        "cmp $0x5555, %%r9; setne %%cl; or %%cl, %%al; cmp $0x6666, %%r10; setne %%cl; or %%cl, %%al\n"
        "cmp $0x7777, %%r12; setne %%cl; or %%cl, %%al; cmp $0x8888, %%r13; setne %%cl; or %%cl, %%al\n"
        "cmp $0x9999, %%r14; setne %%cl; or %%cl, %%al; movq %%xmm5, %%rdx; cmp %%rdx, %%r15; setne %%cl; or %%cl, %%al\n"
        "movzx %%al, %[bad]\n"
        : [bad] "=&r"(bad)
        : [call] "m"(call), [page] "m"(page)
        : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm5", "memory", "cc");
    return bad != 0;
}

/* how a child ends that goes to this address with these contents of RCX and RAX */
static int ends(uint64_t where, uint64_t rcx, uint64_t rax) {
    int status, child = fork();
    if (!child) {
        alarm(2);
        __asm__ volatile("jmp *%%rdx" : : "d"(where), "c"(rcx), "a"(rax));
        _exit(0);
    }
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status));
}

int main(int count, char **words) {
    enum { PAGES = 3000, CALLS = 20000 };
    struct itimerval often = {{0, 3000}, {0, 3000}};
    uint64_t base = 0xffff808000000000ull;
    int bad = 0, alive = 0, status, child;
    setvbuf(stdout, 0, _IONBF, 0);
    signal(SIGALRM, tick);
    setitimer(ITIMER_REAL, &often, 0);
    char *memory = mmap(0, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < CALLS; i++) bad += spoiled(SYS_getpid, 0);
    for (int i = 0; i < PAGES; i++) bad += spoiled(0, memory + ((long)i << 12));
    often.it_interval.tv_usec = often.it_value.tv_usec = 0;
    setitimer(ITIMER_REAL, &often, 0);
    signal(SIGALRM, SIG_DFL);
    printf("registers spoiled: %d, interrupted: %s\n", bad, ticks > 5 ? "often" : "seldom");
    for (uint64_t at = base; at < base + 0x400; at += count > 1 ? 1 : 16) alive += !ends(at, 1ull << 62, 23);
    for (int processor = 0; processor < 2; processor++) {
        uint64_t gates = base + 0x10000 * (1 + processor);
        for (uint64_t at = gates; at < gates + 0x240; at += count > 1 ? 1 : 3) alive += !ends(at, 1ull << 62, 23);
    }
    printf("came back from there: %d\n", alive);
    child = fork();
    if (!child) {
        struct sigaction action = {.sa_sigaction = leave, .sa_flags = SA_SIGINFO};
        sigaction(SIGUSR1, &action, 0);
        raise(SIGUSR1);
        _exit(0);
    }
    waitpid(child, &status, 0);
    printf("returned nowhere: %s\n", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "?");
    return 0;
}
