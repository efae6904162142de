/* The frame of every benchmark program: PROGRAM [ROUNDS] does the same work that many times.
 * Standard output: what the work computed, once. Standard error: a line "round N MICROSECONDS" for each round. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t work(void);

static int64_t microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int main(int count, char **words) {
    int rounds = count > 1 ? atoi(words[1]) : 1;
    uint64_t first = 0;
    for (int round = 0; round < rounds; round++) {
        int64_t begin = microseconds();
        uint64_t result = work();
        int64_t taken = microseconds() - begin;
        if (round == 0) first = result;
        if (result != first) {
            printf("round %d computed %016" PRIx64 ", the first one %016" PRIx64 "\n", round, result, first);
            return 1;
        }
        fprintf(stderr, "round %d %" PRId64 "\n", round, taken);
    }
    printf("%016" PRIx64 "\n", first);
    return 0;
}
