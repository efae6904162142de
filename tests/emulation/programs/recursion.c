/* Deep recursion: to the depth that the stack allows, by itself and in turn, and back; then past it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((noinline)) static long sum(long n) {
    if (n == 0) return 0;
    long rest = sum(n - 1);
    __asm__ volatile("" : "+r"(rest));
    return rest + n;
}

static long odd(long n);
__attribute__((noinline)) static long even(long n) {
    long result = n == 0 ? 1 : odd(n - 1);
    __asm__ volatile("" : "+r"(result));
    return result;
}
__attribute__((noinline)) static long odd(long n) {
    long result = n == 0 ? 0 : even(n - 1);
    __asm__ volatile("" : "+r"(result));
    return result;
}

__attribute__((noinline)) static int ackermann(int m, int n) {
    if (m == 0) return n + 1;
    if (n == 0) return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

#pragma GCC diagnostic ignored "-Winfinite-recursion"
__attribute__((noinline)) static long endless(volatile char *above) {
    volatile char frame[1000];
    frame[0] = *above;
    return endless(frame) + frame[0];
}

static void on_overflow(int number) {
    static const char text[] = "the stack has ended\n";
    (void)number;
    if (write(1, text, sizeof text - 1) < 0) _exit(9);
    _exit(7);
}

int main(void) {
    printf("%ld\n", sum(100000));
    printf("%ld %ld\n", even(90001), even(90000));
    printf("%d\n", ackermann(2, 300));
    fflush(stdout);
    stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    struct sigaction action = {.sa_handler = on_overflow, .sa_flags = SA_ONSTACK};
    sigaltstack(&stack, NULL);
    sigaction(SIGSEGV, &action, NULL);
    char start = 0;
    return (int)endless(&start);
}
