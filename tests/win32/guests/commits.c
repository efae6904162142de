/* Pages of reservations are committed again and again, by several threads; what VirtualQuery then tells of them. */
#include <stdio.h>
#include <windows.h>

#define RESERVED (16u << 20)
#define PAGE 4096u

static unsigned state = 1;

static unsigned next(unsigned below)
{
    state = state * 1103515245 + 12345;
    return (state >> 16) % below;
}

static void tell(const char *what, char *base)
{
    MEMORY_BASIC_INFORMATION about;
    SIZE_T committed = 0, runs = 0, writable = 0;
    for (char *place = base; place < base + RESERVED; place = (char *)about.BaseAddress + about.RegionSize) {
        if (!VirtualQuery(place, &about, sizeof about))
            break;
        runs++;
        if (about.State == MEM_COMMIT)
            committed += about.RegionSize;
        if (about.State == MEM_COMMIT && about.Protect == PAGE_READWRITE)
            writable += about.RegionSize;
    }
    printf("%s: %llu runs, %llu committed, %llu writable\n", what, (unsigned long long)runs, (unsigned long long)committed,
           (unsigned long long)writable);
}

static DWORD WINAPI commit(void *argument)
{
    char *base = argument;
    for (int i = 0; i < 3000; i++) {
        unsigned *page = VirtualAlloc(base + 2 * PAGE * i % (RESERVED / 4), 1, MEM_COMMIT, PAGE_READWRITE);
        if (!page)
            return 1;
        *page = i;
    }
    return 0;
}

int main(void)
{
    char *base = VirtualAlloc(NULL, RESERVED, MEM_RESERVE, PAGE_READWRITE), *got;
    HANDLE threads[4];
    DWORD old, code;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    tell("reserved", base);
    for (int i = 0; i < 4; i++)
        threads[i] = CreateThread(NULL, 0, commit, base + i * (RESERVED / 4), 0, NULL);
    WaitForMultipleObjects(4, threads, TRUE, INFINITE);
    for (int i = 0; i < 4; i++) {
        GetExitCodeThread(threads[i], &code);
        printf("thread %lu\n", code);
    }
    tell("by threads", base);
    VirtualFree(base, RESERVED, MEM_DECOMMIT);
    tell("decommitted", base);
    for (int i = 0; i < 600; i++) {
        unsigned start = next(RESERVED + PAGE), size = next(5 * PAGE);
        DWORD protection = next(8) ? PAGE_READWRITE : next(2) ? PAGE_READONLY : PAGE_NOACCESS;
        SetLastError(0);
        if (next(10) == 0)
            printf("free %u %u: %d %lu\n", start, size, VirtualFree(base + start, size, MEM_DECOMMIT), 0ul);
        else if (next(10) == 0)
            printf("protect %u %u: %d\n", start, size, VirtualProtect(base + start, size + 1, protection, &old));
        else {
            got = VirtualAlloc(base + start, size, MEM_COMMIT, protection);
            printf("commit %u %u %lx: %lld %lu\n", start, size, protection, got ? (long long)(got - base) : -1, GetLastError());
            if (got && protection == PAGE_READWRITE)
                base[start] = 1;
        }
        if (i % 50 == 0)
            tell("now", base);
    }
    printf("free %d\n", VirtualFree(base, 0, MEM_RELEASE));
    printf("gone %d\n", VirtualAlloc(base, 1, MEM_COMMIT, PAGE_READWRITE) != NULL);
    for (int i = 0; i < 100; i++) { /* more reservations than machine code knows */
        char *other = VirtualAlloc(NULL, 2 << 20, MEM_RESERVE, PAGE_READWRITE);
        char *page = VirtualAlloc(other + (1 << 20), 1, MEM_COMMIT, PAGE_READWRITE);
        *page = 1;
        if (i % 3 == 0 && !VirtualFree(other, 0, MEM_RELEASE))
            printf("not released\n");
        if (i % 3 == 0 && VirtualAlloc(other + (1 << 20), 1, MEM_COMMIT, PAGE_READWRITE))
            printf("still there\n");
    }
    return 0;
}
