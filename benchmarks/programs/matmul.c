/* Floating point: the product of two matrices of doubles. */
#include <string.h>

#include "rounds.h"

enum { N = 160 };
static double a[N][N], b[N][N], c[N][N];

static uint64_t work(void) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = (double)(i * 7 + j * 3) / 11.0;
            b[i][j] = (double)(i - j) / 13.0;
        }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
            c[i][j] = sum;
        }
    uint64_t digest = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            uint64_t bits;
            memcpy(&bits, &c[i][j], sizeof bits);
            digest = digest * 31 + bits;
        }
    return digest;
}
