/* Calls of functions that machine code serves, with arguments of all kinds; what they gave, a line each. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <windows.h>

static unsigned seed = 12345;

static unsigned next(unsigned below)
{
    seed = seed * 1103515245 + 12345;
    return (seed >> 16) % below;
}

static unsigned digest(const void *data, size_t size)
{
    unsigned value = 2166136261u;
    for (size_t i = 0; i < size; i++)
        value = (value ^ ((const unsigned char *)data)[i]) * 16777619u;
    return value;
}

static BOOL CALLBACK once(PINIT_ONCE block, void *parameter, void **context)
{
    ++*(int *)parameter;
    *context = (void *)0x12340;
    return TRUE;
}

int main(void)
{
    static const UINT pages[] = {CP_ACP, CP_OEMCP, CP_THREAD_ACP, CP_UTF8, 1252, 932, 4711};
    static const DWORD to_wide[] = {0, MB_ERR_INVALID_CHARS, MB_PRECOMPOSED, 0x4000};
    static const DWORD to_bytes[] = {0, WC_ERR_INVALID_CHARS, 0x400, 0x4000};
    for (int i = 0; i < 600; i++) {
        char bytes[40];
        wchar_t wide[40];
        int length = next(20), odd = next(4) == 0;
        for (int k = 0; k < 40; k++) {
            bytes[k] = k < length ? 1 + next(odd ? 255 : 127) : 0;
            wide[k] = k < length ? 1 + next(odd ? 0xFFFE : 127) : 0;
        }
        int count = next(3) ? -1 : (int)next(22) - 1, capacity = next(3) ? 64 : (int)next(22) - 1;
        UINT page = pages[next(next(2) ? 4 : 7)];
        wchar_t made_wide[64];
        char made[64];
        memset(made_wide, 0x55, sizeof made_wide);
        memset(made, 0x55, sizeof made);
        BOOL used = 7;
        int null = next(30) == 0;
        SetLastError(0);
        int got = MultiByteToWideChar(page, to_wide[next(next(2) ? 1 : 4)], null ? NULL : bytes, count, made_wide, capacity);
        printf("%d %lu %x", got, GetLastError(), got > 0 && capacity > 0 ? digest(made_wide, sizeof made_wide) : 0);
        SetLastError(0);
        got = WideCharToMultiByte(page, to_bytes[next(next(2) ? 1 : 4)], wide, count, next(30) ? made : NULL, capacity,
                                  next(8) ? NULL : "!", next(8) ? NULL : &used);
        printf(" %d %lu %x %d\n", got, GetLastError(), got > 0 && capacity > 0 ? digest(made, sizeof made) : 0, used);
    }
    for (DWORD feature = 0; feature < 70; feature++)
        printf("%d", IsProcessorFeaturePresent(feature));
    printf("%d\n", IsProcessorFeaturePresent(0xFFFFFFFF));
    for (int i = 0; i < 20; i++) {
        void *pointer = (void *)((unsigned long long)next(1 << 15) << 40 | next(1 << 15) << 8);
        printf("%p %p\n", EncodePointer(pointer), DecodePointer(EncodePointer(pointer)));
    }
    INIT_ONCE block = INIT_ONCE_STATIC_INIT;
    int calls = 0;
    for (int i = 0; i < 3; i++) {
        void *context = (void *)1;
        BOOL pending = 9, done = InitOnceExecuteOnce(&block, once, &calls, i == 2 ? NULL : &context);
        printf("once %d %d %p\n", done, calls, context);
        done = InitOnceBeginInitialize(&block, i == 1 ? INIT_ONCE_CHECK_ONLY : 0, &pending, i == 2 ? NULL : &context);
        printf("begin %d %d %p\n", done, pending, context);
    }
    INIT_ONCE fresh = INIT_ONCE_STATIC_INIT;
    BOOL pending = 9;
    printf("check %d\n", InitOnceBeginInitialize(&fresh, INIT_ONCE_CHECK_ONLY, &pending, NULL));
    LARGE_INTEGER frequency;
    QueryPerformanceFrequency(&frequency);
    printf("frequency %lld\n", frequency.QuadPart);
    FILETIME now, precise;
    GetSystemTimeAsFileTime(&now);
    GetSystemTimePreciseAsFileTime(&precise);
    long long ticks = (long long)now.dwHighDateTime << 32 | now.dwLowDateTime;
    long long later = (long long)precise.dwHighDateTime << 32 | precise.dwLowDateTime;
    long long seconds = ticks / 10000000 - 11644473600LL, here = time(NULL);
    printf("time %d %d\n", here - seconds < 60 && seconds - here < 60, later >= ticks && later - ticks < 600000000);
    ULONGLONG before = GetTickCount64();
    DWORD low = GetTickCount();
    ULONGLONG interrupts;
    QueryInterruptTime(&interrupts);
    printf("ticks %d %d\n", low - (DWORD)before < 60000, interrupts / 10000 - before + 1000 < 61000);
    return 0;
}
