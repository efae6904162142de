/* One program of several, as busybox is: Lua, SQLite and Zstandard, chosen by the first word. */
#include <stdio.h>
#include <string.h>

#include "sqlite3.h"
#include "zstd.h"

int lua_main(int count, char **words); /* lua.c, its main renamed */

static int row(void *unused, int count, char **values, char **names) {
    (void)unused, (void)names;
    for (int i = 0; i < count; i++) printf("%s%s", i ? "|" : "", values[i] ? values[i] : "");
    putchar('\n');
    return 0;
}

static int sql(int count, char **words) {
    sqlite3 *database;
    char *message = NULL;
    if (sqlite3_open(":memory:", &database) != SQLITE_OK) return 1;
    for (int i = 1; i < count; i++)
        if (sqlite3_exec(database, words[i], row, NULL, &message) != SQLITE_OK) {
            fprintf(stderr, "sql: %s\n", message);
            return 1;
        }
    return sqlite3_close(database) != SQLITE_OK;
}

static int zstd(void) {
    static char text[1 << 20], packed[2 << 20];
    size_t size = fread(text, 1, sizeof text, stdin);
    size_t length = ZSTD_compress(packed, sizeof packed, text, size, 3);
    if (ZSTD_isError(length)) return 1;
    return fwrite(packed, 1, length, stdout) != length;
}

int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "lua")) return lua_main(count - 1, words + 1);
    if (count > 1 && !strcmp(words[1], "sql")) return sql(count - 1, words + 1);
    if (count > 1 && !strcmp(words[1], "zstd")) return zstd();
    fputs("usage: toolbox lua [SCRIPT] | sql STATEMENT... | zstd <FILE\n", stderr);
    return 2;
}
