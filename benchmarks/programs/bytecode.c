/* Computed jumps: a stack machine, one label for each operation, counts the steps of Collatz sequences. */
#include "rounds.h"

enum { LIMIT = 3000 };
enum operation { PUSH, LOAD, STORE, ADD, MULTIPLY, HALVE, ODD, LESS, BRANCH, JUMP, HALT };
enum variable { N, VALUE, STEPS };
typedef struct {
    int32_t operation, operand;
} Instruction;

/* Jumps name the index of an instruction. */
enum { OUTER = 2, INNER = 4, TRIPLE = 19, NEXT_N = 26 };
static const Instruction program[] = {
    [0] = {PUSH, 1}, {STORE, N},
    [OUTER] = {LOAD, N}, {STORE, VALUE},
    [INNER] = {LOAD, VALUE}, {PUSH, 2}, {LESS, 0}, {BRANCH, NEXT_N},
    [8] = {LOAD, STEPS}, {PUSH, 1}, {ADD, 0}, {STORE, STEPS},
    [12] = {LOAD, VALUE}, {ODD, 0}, {BRANCH, TRIPLE},
    [15] = {LOAD, VALUE}, {HALVE, 0}, {STORE, VALUE}, {JUMP, INNER},
    [TRIPLE] = {LOAD, VALUE}, {PUSH, 3}, {MULTIPLY, 0}, {PUSH, 1}, {ADD, 0}, {STORE, VALUE}, {JUMP, INNER},
    [NEXT_N] = {LOAD, N}, {PUSH, 1}, {ADD, 0}, {STORE, N}, {LOAD, N}, {PUSH, LIMIT}, {LESS, 0}, {BRANCH, OUTER},
    [34] = {HALT, 0},
};

static uint64_t run(const Instruction *code) {
    static const void *const labels[] = {
        [PUSH] = &&push, [LOAD] = &&load, [STORE] = &&store, [ADD] = &&add, [MULTIPLY] = &&multiply, [HALVE] = &&halve,
        [ODD] = &&odd, [LESS] = &&less, [BRANCH] = &&branch, [JUMP] = &&jump, [HALT] = &&halt};
    int64_t stack[16], *top = stack, variables[4] = {0};
    const Instruction *at = code;
#define NEXT goto *labels[(++at)->operation]
    goto *labels[at->operation];
push: *top++ = at->operand; NEXT;
load: *top++ = variables[at->operand]; NEXT;
store: variables[at->operand] = *--top; NEXT;
add: top--; top[-1] += top[0]; NEXT;
multiply: top--; top[-1] *= top[0]; NEXT;
halve: top[-1] /= 2; NEXT;
odd: top[-1] &= 1; NEXT;
less: top--; top[-1] = top[-1] < top[0]; NEXT;
branch: if (*--top) at = code + at->operand - 1; NEXT;
jump: at = code + at->operand - 1; NEXT;
halt: return (uint64_t)variables[STEPS];
}

static uint64_t work(void) { return run(program); }
