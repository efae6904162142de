/* Threads hand a turn to each other through WaitOnAddress, in words of every size, and time out. */
#define _WIN32_WINNT 0x0A00
#include <stdio.h>
#include <windows.h>

#define THREADS 4
#define TURNS 400

static volatile union {
    unsigned char bytes[8];
    unsigned short halves[4];
    unsigned words[2];
    unsigned long long whole;
} turn;
static int size, place;
static volatile LONG lock, total;

static unsigned long long now(void)
{
    return size == 1 ? turn.bytes[place] : size == 2 ? turn.halves[place] : size == 4 ? turn.words[place] : turn.whole;
}

static DWORD WINAPI hand_on(void *argument)
{
    unsigned mine = (unsigned)(size_t)argument;
    volatile void *address = size == 1   ? (volatile void *)&turn.bytes[place]
                             : size == 2 ? (volatile void *)&turn.halves[place]
                             : size == 4 ? (volatile void *)&turn.words[place]
                                         : (volatile void *)&turn.whole;
    for (int i = 0; i < (size == 8 ? 10 : TURNS); i++) {
        unsigned long long seen;
        while ((seen = now()) != mine)
            WaitOnAddress(address, &seen, size, i % 2 ? INFINITE : 60000);
        total++;
        unsigned next = (mine + 1) % THREADS;
        if (size == 1)
            turn.bytes[place] = next;
        else if (size == 2)
            turn.halves[place] = next;
        else if (size == 4)
            turn.words[place] = next;
        else
            turn.whole = next;
        WakeByAddressAll((void *)address);
    }
    return 0;
}

static DWORD WINAPI count(void *unused)
{
    for (int i = 0; i < 2000; i++) {
        LONG busy = 2;
        if (InterlockedCompareExchange(&lock, 1, 0))
            while (InterlockedExchange(&lock, 2))
                WaitOnAddress(&lock, &busy, 4, INFINITE);
        total++;
        if (InterlockedExchange(&lock, 0) == 2)
            WakeByAddressSingle((void *)&lock);
    }
    return 0;
}

static void together(DWORD(WINAPI *body)(void *))
{
    HANDLE threads[THREADS];
    total = 0;
    turn.whole = 0;
    for (int i = 0; i < THREADS; i++)
        threads[i] = CreateThread(NULL, 0, body, (void *)(size_t)i, 0, NULL);
    WaitForMultipleObjects(THREADS, threads, TRUE, INFINITE);
    printf("%d\n", (int)total);
}

int main(void)
{
    for (size = 1; size <= 8; size *= 2)
        for (place = 0; place < 8 / size; place += 3)
            together(hand_on);
    together(count);
    unsigned value = 5, other = 6;
    ULONGLONG before = GetTickCount64();
    BOOL woken = WaitOnAddress(&value, &value, 4, 300);
    printf("%d %lu %d\n", woken, GetLastError(), GetTickCount64() - before >= 299);
    printf("%d\n", WaitOnAddress(&value, &other, 4, INFINITE));
    SetLastError(0);
    woken = WaitOnAddress(&value, &value, 3, 0);
    printf("%d %lu\n", woken, GetLastError());
    woken = WaitOnAddress(&value, &value, 4, 0);
    printf("%d %lu\n", woken, GetLastError());
    return 0;
}
