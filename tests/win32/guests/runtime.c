/* What a small C program asks of its runtime. */
#define __USE_MINGW_ANSI_STDIO 0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
static void last(void) { puts("at exit"); }

int main(int argc, char **argv) {
    char line[100], *end;
    int numbers[] = {5, -3, 9, 0}, i;
    atexit(last);
    printf("%d %s|%5d|%-6s|%06.2f|%#x|%c|%%|%.3s\n", argc, argv[1], 42, "ab", 3.14159, 255, 'z', "abcdef");
    printf("%I64d %ld %u %g %e\n", 1234567890123LL, -5L, 4000000000u, 0.0001, 12345.678);
    qsort(numbers, 4, sizeof *numbers, by_value);
    for (i = 0; i < 4; i++) printf("%d ", numbers[i]);
    printf("\n%ld %lu\n", strtol("  -0x1fz", &end, 0), strtoul("777", 0, 8));
    printf("rest %s\n", end);
    FILE *file = fopen("made.txt", "w");
    fprintf(file, "one\ntwo %d\n", 2);
    fclose(file);
    file = fopen("MADE.TXT", "r");
    while (fgets(line, sizeof line, file)) printf("line %d: %s", (int)strlen(line), line);
    printf("end %d\n", feof(file) != 0);
    fclose(file);
    char *block = malloc(10);
    strcpy(block, "grown");
    block = realloc(block, 100000);
    printf("%s %d %d\n", block, strcmp(block, "growo"), strncmp(block, "grow!", 4));
    free(block);
    fputs("to stderr\n", stderr);
    printf("none %d\n", fopen("no such directory/x", "r") == 0);
    return argc;
}
