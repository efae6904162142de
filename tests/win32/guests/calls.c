/* Calls both ways: many arguments, callbacks, threads, locks, thread-local storage, fibers' and libraries' handles. */
#include <process.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

static CRITICAL_SECTION section;
static SRWLOCK lock = SRWLOCK_INIT;
static volatile long counted, shared;
static DWORD slot;
static __thread int own = 7;

static unsigned __stdcall worker(void *argument) {
    int number = (int)(size_t)argument;
    own += number;
    TlsSetValue(slot, (void *)(size_t)(number + 100));
    for (int i = 0; i < 2000; i++) {
        EnterCriticalSection(&section);
        EnterCriticalSection(&section);
        counted++;
        LeaveCriticalSection(&section);
        LeaveCriticalSection(&section);
        AcquireSRWLockExclusive(&lock);
        shared++;
        ReleaseSRWLockExclusive(&lock);
        if (i % 500 == 0) SwitchToThread();
    }
    return own == 7 + number && TlsGetValue(slot) == (void *)(size_t)(number + 100) ? number : 99;
}

static int order(const void *one, const void *other) { return *(const int *)one - *(const int *)other; }

static BOOL CALLBACK initialise(PINIT_ONCE once, PVOID parameter, PVOID *context) {
    (void)once;
    (void)context;
    ++*(int *)parameter;
    return TRUE;
}

int main(void) {
    HANDLE threads[4];
    INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    int times = 0, numbers[] = {5, 3, 9, 1}, sum = 0;
    char text[64], *block;
    DWORD code;
    InitializeCriticalSection(&section);
    slot = TlsAlloc();
    for (int i = 0; i < 4; i++) threads[i] = (HANDLE)_beginthreadex(NULL, 0, worker, (void *)(size_t)(i + 1), 0, NULL);
    WaitForMultipleObjects(4, threads, TRUE, INFINITE);
    for (int i = 0; i < 4; i++) {
        GetExitCodeThread(threads[i], &code);
        sum += (int)code;
        CloseHandle(threads[i]);
    }
    printf("threads %d %ld %ld %d\n", sum, counted, shared, own);
    qsort(numbers, 4, sizeof *numbers, order);
    printf("sorted %d %d\n", numbers[0], numbers[3]);
    for (int i = 0; i < 3; i++) InitOnceExecuteOnce(&once, initialise, &times, NULL);
    printf("once %d\n", times);
    code = FormatMessageA(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, 2, 0x409, text, sizeof text, NULL);
    printf("seven arguments %d %.8s\n", code > 8, text);
    block = HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, 100);
    memcpy(block, "kept", 5);
    block = HeapReAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, block, 100000);
    sum = HeapSize(GetProcessHeap(), 0, block) == 100000;
    printf("heap %s %d %d\n", block, block[50000], sum);
    printf("free %d\n", HeapFree(GetProcessHeap(), 0, block));
    printf("found %d %d\n", GetProcAddress(GetModuleHandleA("kernel32"), "HeapAlloc") != NULL,
           GetProcAddress(GetModuleHandleA("kernel32"), "NoSuchFunction") == NULL);
    SetLastError(1234);
    printf("error %lu\n", GetLastError());
    printf("float %.3f %.3f\n", strtod("2.5", NULL), 1.0 / 3);
    volatile ULONGLONG *ticks = (volatile ULONGLONG *)0x7FFE0008; /* KUSER_SHARED_DATA.InterruptTime */
    ULONGLONG before = *ticks;
    Sleep(100);
    printf("time %d\n", *ticks - before >= 500000 && *ticks - before < 50000000);
    return 42;
}
