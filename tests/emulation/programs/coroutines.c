/* Coroutines by swapcontext(3): many stacks, switched in turn. */
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

enum { COROUTINES = 8, ROUNDS = 200, STACK = 32768 };
static ucontext_t center, each[COROUTINES];
static long sums[COROUTINES];

static long weight(int depth) { return depth ? weight(depth - 1) * 2 % 1009 + 1 : 1; }

static void run(int number) {
    for (int round = 0; round < ROUNDS; round++) {
        sums[number] += weight(number + round % 7) + round;
        swapcontext(&each[number], &center);
    }
}

int main(void) {
    for (int i = 0; i < COROUTINES; i++) {
        getcontext(&each[i]);
        each[i].uc_stack.ss_sp = malloc(STACK);
        each[i].uc_stack.ss_size = STACK;
        each[i].uc_link = &center;
        makecontext(&each[i], (void (*)(void))run, 1, i);
    }
    for (int round = 0; round <= ROUNDS; round++)
        for (int i = 0; i < COROUTINES; i++) swapcontext(&center, &each[i]);
    for (int i = 0; i < COROUTINES; i++) printf("%ld ", sums[i]);
    putchar('\n');
    return 0;
}
