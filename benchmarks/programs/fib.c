/* Calls and returns: the Fibonacci numbers by their definition. */
#include "rounds.h"

__attribute__((noinline)) static uint64_t fib(uint64_t n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static uint64_t work(void) {
    volatile uint64_t n = 33;
    return fib(n);
}
