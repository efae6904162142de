/* Signals: what a handler sees of the interrupted registers, what it changes, timers, nesting, other stacks. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

extern char faulting[], storing[];
static volatile sig_atomic_t alarms, depth, deepest, order[8], ordered;
static uintptr_t where;

/* A load and a store to address 64, with known values in registers all around them. */
__attribute__((naked)) static uint64_t fault(void) {
    __asm__("addi sp, sp, -32\n sd s2, 0(sp)\n sd s11, 8(sp)\n"
            "li t0, 0x1111\n li t6, 0x6666\n li s2, 0x2222\n li s11, 0xbbbb\n li a7, 0x7777\n li a0, 64\n"
            "fcvt.d.l fa5, t0\n"
            ".globl faulting, storing\n"
            ".option push\n .option norvc\n"
            "faulting: ld a1, 0(a0)\n"
            "storing: sd a1, 8(a0)\n"
            ".option pop\n"
            "fcvt.l.d t1, fa5\n"
            "add a0, a1, t1\n add a0, a0, s2\n add a0, a0, t6\n"
            "ld s2, 0(sp)\n ld s11, 8(sp)\n addi sp, sp, 32\n ret\n");
}

static void on_fault(int number, siginfo_t *info, void *context) {
    ucontext_t *user = context;
    unsigned long *registers = user->uc_mcontext.__gregs; /* [0] is the pc */
    int load = registers[0] == (unsigned long)faulting;
    printf("signal %d code %d address %p at the %s\n", number, info->si_code, info->si_addr,
           load ? "load" : registers[0] == (unsigned long)storing ? "store" : "wrong place");
    printf("t0 %lx t6 %lx s2 %lx s11 %lx a7 %lx a0 %lx\n", registers[5], registers[31], registers[18], registers[27],
           registers[17], registers[10]);
    if (load) registers[11] = 0x100000; /* a1: as if it had been loaded */
    registers[0] += 4;
}

static void on_alarm(int number) {
    (void)number;
    alarms++;
}

static void on_nested(int number) {
    depth++;
    if (depth > deepest) deepest = depth;
    order[ordered++] = number;
    if (number == SIGUSR1) raise(SIGUSR2);
    order[ordered++] = -number;
    depth--;
}

static void on_other_stack(int number, siginfo_t *info, void *context) {
    (void)info, (void)context;
    char local;
    where = (uintptr_t)&local;
    (void)number;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    printf("result %lx\n", fault());

    signal(SIGALRM, on_alarm); /* a loop without a call is interrupted */
    struct itimerval every = {{0, 2000}, {0, 2000}};
    setitimer(ITIMER_REAL, &every, NULL);
    volatile uint64_t spins = 0;
    double product = 1.0;
    while (alarms < 5) {
        spins++;
        product *= 1.0;
    }
    memset(&every, 0, sizeof every);
    setitimer(ITIMER_REAL, &every, NULL);
    printf("alarms %s, product %g, spun %s\n", alarms >= 5 ? "came" : "missing", product, spins ? "yes" : "no");

    signal(SIGUSR1, on_nested);
    signal(SIGUSR2, on_nested);
    raise(SIGUSR1);
    printf("nested %d deep:", deepest);
    for (int i = 0; i < ordered; i++) printf(" %d", order[i]);
    putchar('\n');

    sigset_t set, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR2);
    sigpending(&pending);
    int before = ordered;
    printf("blocked: pending %d", sigismember(&pending, SIGUSR2));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    printf(", delivered %d\n", ordered - before);

    stack_t stack = {.ss_sp = malloc(SIGSTKSZ), .ss_size = SIGSTKSZ};
    sigaltstack(&stack, NULL);
    action.sa_sigaction = on_other_stack;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    printf("on the other stack: %d\n", where - (uintptr_t)stack.ss_sp < stack.ss_size);
    fflush(stdout);
    signal(SIGSEGV, SIG_DFL);
    volatile uintptr_t nowhere = 8;
    *(volatile int *)nowhere = 1;
    return 0;
}
