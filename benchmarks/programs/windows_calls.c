/* What Windows' functions and loops cost, as the program itself sees it: a line "name nanoseconds" for each. */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

static double now(void)
{
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return (double)count.QuadPart * 1e9 / (double)frequency.QuadPart;
}

static double a[4096], b[4096];
static CRITICAL_SECTION section;
static volatile unsigned long sink;

#define MEASURE(name, count, body)                                                                                     \
    do {                                                                                                               \
        long n = (count);                                                                                              \
        double start = now();                                                                                          \
        for (long i = 0; i < n; i++) {                                                                                 \
            body;                                                                                                      \
        }                                                                                                              \
        printf("%s %.3f\n", name, (now() - start) / (double)n);                                                        \
    } while (0)

__attribute__((noinline)) static double stencil(long rounds)
{
    double sum = 0;
    for (long round = 0; round < rounds; round++)
        for (int i = 1; i < 4095; i++) {
            b[i] = a[i - 1] * 0.25 + a[i] * 0.5 + a[i + 1] * 0.25;
            sum += b[i] * 1.0000001;
        }
    return sum;
}

__attribute__((noinline)) static unsigned long long registers(long rounds)
{
    unsigned long long x = 88172645463325252ull;
    for (long i = 0; i < rounds; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

int main(int argc, char **argv)
{
    long calls = argc > 1 ? atol(argv[1]) : 1000000, rounds = argc > 2 ? atol(argv[2]) : 2000;
    HANDLE output = GetStdHandle(STD_OUTPUT_HANDLE);
    InitializeCriticalSection(&section);
    DWORD slot = TlsAlloc();
    for (int i = 0; i < 4096; i++)
        a[i] = 1.0 + i * 1e-3;
    MEASURE("GetLastError", calls, sink += GetLastError());
    MEASURE("TlsGetValue", calls, sink += (unsigned long)(size_t)TlsGetValue(slot));
    MEASURE("EnterCriticalSection", calls, EnterCriticalSection(&section); LeaveCriticalSection(&section));
    MEASURE("GetFileType", calls / 10, sink += GetFileType(output));
    MEASURE("GetConsoleCP", calls / 10, sink += GetConsoleCP());
    double start = now();
    double sum = stencil(rounds);
    printf("stencil %.3f\n", (now() - start) / ((double)rounds * 4094));
    start = now();
    unsigned long long x = registers(rounds * 4096);
    printf("registers %.3f\n", (now() - start) / ((double)rounds * 4096));
    printf("check %.6g %llu\n", sum, x);
    return 0;
}
