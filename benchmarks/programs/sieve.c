/* Stores with a stride: the sieve of Eratosthenes. */
#include <string.h>

#include "rounds.h"

enum { LIMIT = 4000000 };
static unsigned char composite[LIMIT];

static uint64_t work(void) {
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
