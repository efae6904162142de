/* Stores with a stride: the sieve of Eratosthenes, a byte for each number, in a table that stays in the host's first
 * cache. (With one that does not, the host's memory is what is measured: native gains nothing on any emulator.) */
#include <string.h>

#include "rounds.h"

enum { LIMIT = 16384, ITERATIONS = 400 };
static unsigned char composite[LIMIT];

static uint64_t sieve(void) {
    uint64_t count = 0, sum = 0;
    memset(composite, 0, sizeof composite);
    for (uint64_t n = 2; n < LIMIT; n++) {
        if (composite[n]) continue;
        count++;
        sum += n;
        for (uint64_t multiple = n * n; multiple < LIMIT; multiple += n) composite[multiple] = 1;
    }
    return count << 40 ^ sum;
}

static uint64_t work(void) {
    uint64_t total = 0;
    for (int iteration = 0; iteration < ITERATIONS; iteration++) total = total * 31 + sieve();
    return total;
}
