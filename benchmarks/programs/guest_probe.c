/* What a Linux costs from within: calls, processes, pages, computing, and reading a disk or the network. A line each:
 * a name, and a figure in its own unit. It is linked statically, and runs natively as well. */
#include <fcntl.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double calls(int count) {
    double start = now();
    for (int i = 0; i < count; i++) syscall(SYS_getpid);
    return (now() - start) / count;
}

static double processes(int count, const char *self) {
    double start = now();
    for (int i = 0; i < count; i++) {
        int child = fork();
        if (!child) {
            execl(self, self, "nothing", (char *)0);
            _exit(1);
        }
        waitpid(child, 0, 0);
    }
    return (now() - start) / count / 1e3;
}

static double sorting(void) {
    enum { COUNT = 1000000 };
    static uint32_t numbers[COUNT];
    uint32_t x = 1;
    for (int i = 0; i < COUNT; i++) numbers[i] = x = x * 1664525u + 1013904223u;
    double start = now();
    qsort(numbers, COUNT, sizeof *numbers, by_value);
    return (now() - start) / 1e3;
}

static double touching(int count) {
    char *memory = mmap(0, (size_t)count << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double start = now();
    for (int i = 0; i < count; i++) memory[(size_t)i << 12] = 1;
    start = now() - start;
    munmap(memory, (size_t)count << 12);
    return start / count;
}

static uint32_t turn(uint32_t x, int by) { return x >> by | x << (32 - by); }

/* rounds as SHA-256's, which is what matters here: shifts, sums and a table in registers and the first cache */
static double hashing(void) {
    uint32_t state[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    double start = now();
    for (uint32_t i = 0; i < 20000000; i++) {
        uint32_t a = state[0], e = state[4];
        uint32_t one = state[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & state[5]) ^ (~e & state[6])) + i;
        uint32_t two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & state[1]) ^ (a & state[2]) ^ (state[1] & state[2]));
        memmove(state + 1, state, 7 * sizeof *state);
        state[4] += one;
        state[0] = one + two;
    }
    fprintf(stderr, "%u\n", state[0]);
    return (now() - start) / 1e3;
}

static void reading(const char *path) {
    int file = open(path, O_RDONLY);
    char *buffer = malloc(1 << 20);
    long total = 0, got;
    double start = now();
    if (file < 0) return;
    while ((got = read(file, buffer, 1 << 20)) > 0) total += got;
    printf("block %.1f\n", total / (now() - start));
}

static void network(const char *to, int port, long bytes) {
    int one = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    char *buffer = calloc(1, 1 << 16);
    setsockopt(one, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!strcmp(to, "listen")) {
        bind(one, (struct sockaddr *)&address, sizeof address);
        listen(one, 1);
        int other = accept(one, 0, 0);
        while (read(other, buffer, 1 << 16) > 0) {}
        write(other, "x", 1);
        return;
    }
    inet_pton(AF_INET, to, &address.sin_addr);
    while (connect(one, (struct sockaddr *)&address, sizeof address)) {
        close(one);
        usleep(100000);
        one = socket(AF_INET, SOCK_STREAM, 0);
    }
    double start = now();
    for (long left = bytes; left > 0;) {
        long put = write(one, buffer, left < 1 << 16 ? left : 1 << 16);
        if (put <= 0) return;
        left -= put;
    }
    shutdown(one, SHUT_WR);
    read(one, buffer, 1);
    printf("network %.1f\n", bytes * 8 / (now() - start));
}

int main(int count, char **words) {
    setvbuf(stdout, 0, _IONBF, 0);
    if (count > 1 && !strcmp(words[1], "nothing")) return 0;
    if (count > 2 && !strcmp(words[1], "network")) {
        network(words[2], 5001, count > 3 ? atol(words[3]) : 0);
        return 0;
    }
    printf("getpid %.3f\n", calls(5000));
    printf("page %.3f\n", touching(2000));
    for (int i = 0; i < 3; i++) sorting();  /* the allocator keeps memory that has been touched: sorting is sorting */
    printf("sort %.2f\n", sorting());
    printf("hash %.2f\n", hashing());
    printf("process %.3f\n", processes(20, words[0]));
    if (count > 1) reading(words[1]);
    return 0;
}
