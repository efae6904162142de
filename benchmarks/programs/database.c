/* SQLite in memory: rows go in, are indexed, joined, grouped and changed. */
#include <string.h>

#include "rounds.h"
#include "sqlite3.h"

static const char *const statements[] = {
    "create table person(id integer primary key, name text, city integer, born integer)",
    "create table city(id integer primary key, name text)",
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 40) "
    "insert into city select i, 'city ' || i from n",
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 6000) "
    "insert into person select i, 'name ' || (i * 7919 % 6007), i * 31 % 40 + 1, 1900 + i * 17 % 120 from n",
    "create index person_city on person(city, born)",
    "create index person_name on person(name)",
    "select city.name, count(*), avg(born), max(person.name) from person join city on city.id = person.city "
    "group by city.id order by 2, 1",
    "select a.name from person a join person b on b.name = 'name ' || a.id where b.born < a.born order by 1 limit 50",
    "update person set born = born + 1 where city in (select id from city where name like '%3%')",
    "delete from person where id % 3 = 0",
    "select sum(born), sum(length(name)), group_concat(id % 10, '') from person where born between 1950 and 1980",
};

static int row(void *digest, int count, char **values, char **names) {
    (void)names;
    for (int i = 0; i < count; i++)
        for (const char *c = values[i] ? values[i] : ""; *c; c++) *(uint64_t *)digest = *(uint64_t *)digest * 31 + (unsigned char)*c;
    return 0;
}

static uint64_t work(void) {
    sqlite3 *database;
    uint64_t digest = 0;
    char *message = NULL;
    if (sqlite3_open(":memory:", &database) != SQLITE_OK) return 0;
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (sqlite3_exec(database, statements[i], row, &digest, &message) != SQLITE_OK) {
            fprintf(stderr, "%s\n", message);
            exit(1);
        }
    sqlite3_close(database);
    return digest;
}
