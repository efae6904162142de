/* Leaving functions another way: longjmp over many frames, out of a handler, and again and again. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>

static jmp_buf top;
static sigjmp_buf safe;

#pragma GCC diagnostic ignored "-Winfinite-recursion" /* it ends by longjmp */
__attribute__((noinline)) static int down(int depth, int value) {
    if (depth == 0) longjmp(top, value);
    int result = down(depth - 1, value);
    return result + depth; /* no tail call */
}

static void on_fault(int number) { siglongjmp(safe, number); }

__attribute__((noinline)) static double keeps(double x) {
    jmp_buf here; /* callee-saved floating-point registers come back */
    volatile double result = x * 1.5;
    if (setjmp(here) == 0) {
        result += 1;
        longjmp(here, 1);
    }
    return result;
}

int main(void) {
    volatile long sum = 0;
    for (volatile int round = 1; round <= 200; round++) {
        int value = setjmp(top);
        if (value == 0) sum += down(round * 5, round);
        else sum += value;
    }
    printf("sum %ld\n", sum);
    signal(SIGSEGV, on_fault);
    volatile int caught = 0;
    for (volatile int round = 0; round < 20; round++) {
        if (sigsetjmp(safe, 1) == 0) *(volatile char *)(long)(round + 1) = 1;
        else caught++;
    }
    printf("caught %d\n", caught);
    printf("kept %g\n", keeps(3.0));
    return 0;
}
