/* What Windows' functions and loops cost, as the program itself sees it: a line "name nanoseconds" for each. */
#define _WIN32_WINNT 0x0A00
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>
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

/* Calls of real programs, by how often ripgrep, ruff, 7-Zip, esbuild, uv and ninja make them. */
static void others(long calls, const char *directory)
{
    HANDLE output = GetStdHandle(STD_OUTPUT_HANDLE), heap = GetProcessHeap();
    HANDLE event = CreateEventW(NULL, TRUE, TRUE, NULL), automatic = CreateEventW(NULL, FALSE, FALSE, NULL);
    HANDLE semaphore = CreateSemaphoreW(NULL, 0, 1 << 30, NULL), mutex = CreateMutexW(NULL, FALSE, NULL);
    wchar_t name[MAX_PATH], full[MAX_PATH], missing[MAX_PATH], every[MAX_PATH];
    char narrow[64], byte = 0;
    DWORD slot = FlsAlloc(NULL), count, mode;
    SRWLOCK lock = SRWLOCK_INIT;
    CONDITION_VARIABLE condition = CONDITION_VARIABLE_INIT;
    INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    BOOL pending;
    LARGE_INTEGER place, zero = {0};
    FILETIME now_there;
    SYSTEMTIME parts;
    MEMORY_BASIC_INFORMATION region;
    BY_HANDLE_FILE_INFORMATION information;
    WIN32_FIND_DATAW found;
    WIN32_FILE_ATTRIBUTE_DATA attributes;
    SLIST_HEADER list;
    swprintf(name, MAX_PATH, L"%hs\\made.tmp", directory);
    swprintf(missing, MAX_PATH, L"%hs\\missing.tmp", directory);
    swprintf(every, MAX_PATH, L"%hs\\*", directory);
    HANDLE file = CreateFileW(name, GENERIC_READ | GENERIC_WRITE, 7, NULL, CREATE_ALWAYS, FILE_FLAG_DELETE_ON_CLOSE, NULL);
    if (file == INVALID_HANDLE_VALUE) {
        printf("cannot make a file\n");
        exit(1);
    }
    InitializeSListHead(&list);
    FlsSetValue(slot, &lock);
    InitOnceBeginInitialize(&once, 0, &pending, NULL);
    InitOnceComplete(&once, 0, NULL);
    char *pages = VirtualAlloc(NULL, 1 << 20, MEM_RESERVE, PAGE_READWRITE);
    MEASURE("SetLastError", calls, SetLastError(5));
    MEASURE("GetCurrentThreadId", calls, sink += GetCurrentThreadId());
    MEASURE("GetProcessHeap", calls, sink += (unsigned long)(size_t)GetProcessHeap());
    MEASURE("FlsGetValue", calls, sink += (unsigned long)(size_t)FlsGetValue(slot));
    MEASURE("AcquireSRWLockExclusive", calls, AcquireSRWLockExclusive(&lock); ReleaseSRWLockExclusive(&lock));
    MEASURE("AcquireSRWLockShared", calls, AcquireSRWLockShared(&lock); ReleaseSRWLockShared(&lock));
    MEASURE("WakeConditionVariable", calls, WakeConditionVariable(&condition));
    MEASURE("WakeByAddressSingle", calls, WakeByAddressSingle((void *)&sink));
    MEASURE("InitOnceBeginInitialize", calls, InitOnceBeginInitialize(&once, 0, &pending, NULL));
    MEASURE("HeapAlloc", calls, HeapFree(heap, 0, HeapAlloc(heap, 0, 64)));
    MEASURE("QueryPerformanceCounter", calls, QueryPerformanceCounter(&place));
    MEASURE("GetTickCount64", calls, sink += (unsigned long)GetTickCount64());
    MEASURE("GetSystemTimeAsFileTime", calls, GetSystemTimeAsFileTime(&now_there));
    MEASURE("FileTimeToSystemTime", calls, FileTimeToSystemTime(&now_there, &parts));
    MEASURE("MultiByteToWideChar", calls, MultiByteToWideChar(CP_UTF8, 0, "twenty characters...", -1, full, 64));
    MEASURE("WideCharToMultiByte", calls, WideCharToMultiByte(CP_UTF8, 0, L"twenty characters...", -1, narrow, 64, 0, 0));
    MEASURE("GetStdHandle", calls, sink += (unsigned long)(size_t)GetStdHandle(STD_OUTPUT_HANDLE));
    MEASURE("GetConsoleMode", calls, sink += GetConsoleMode(output, &mode));
    MEASURE("GetConsoleOutputCP", calls, sink += GetConsoleOutputCP());
    MEASURE("GetACP", calls, sink += GetACP());
    MEASURE("IsDBCSLeadByte", calls, sink += IsDBCSLeadByte(65));
    MEASURE("GetModuleHandleW", calls, sink += (unsigned long)(size_t)GetModuleHandleW(NULL));
    MEASURE("GetCommandLineW", calls, sink += (unsigned long)(size_t)GetCommandLineW());
    MEASURE("GetEnvironmentVariableW", calls, sink += GetEnvironmentVariableW(L"PATH", NULL, 0));
    MEASURE("GetFullPathNameW", calls, sink += GetFullPathNameW(L"one\\two.txt", MAX_PATH, full, NULL));
    MEASURE("QueryDepthSList", calls, sink += QueryDepthSList(&list));
    MEASURE("SwitchToThread", calls, SwitchToThread());
    MEASURE("SetEvent", calls, SetEvent(event));
    MEASURE("WaitForSingleObject signalled", calls, WaitForSingleObject(event, 0));
    MEASURE("WaitForSingleObject timeout", calls, WaitForSingleObject(automatic, 0));
    MEASURE("ReleaseSemaphore and wait", calls, ReleaseSemaphore(semaphore, 1, NULL); WaitForSingleObject(semaphore, 0));
    MEASURE("mutex and release", calls, WaitForSingleObject(mutex, 0); ReleaseMutex(mutex));
    MEASURE("DuplicateHandle and CloseHandle", calls, HANDLE other;
            DuplicateHandle(GetCurrentProcess(), event, GetCurrentProcess(), &other, 0, FALSE, 2); CloseHandle(other));
    MEASURE("VirtualQuery", calls, VirtualQuery(pages, &region, sizeof region));
    MEASURE("VirtualAlloc of committed", calls, VirtualAlloc(pages, 4096, MEM_COMMIT, PAGE_READWRITE));
    MEASURE("VirtualAlloc and VirtualFree", calls / 10,
            VirtualFree(VirtualAlloc(NULL, 65536, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE), 0, MEM_RELEASE));
    MEASURE("WriteFile", calls, WriteFile(file, &byte, 1, &count, NULL));
    MEASURE("SetFilePointerEx", calls, SetFilePointerEx(file, zero, &place, FILE_BEGIN));
    MEASURE("ReadFile", calls / 10, ReadFile(file, &byte, 1, &count, NULL));
    MEASURE("GetFileSizeEx", calls, GetFileSizeEx(file, &place));
    MEASURE("GetFileInformationByHandle", calls, GetFileInformationByHandle(file, &information));
    MEASURE("GetFileAttributesExW", calls, GetFileAttributesExW(name, GetFileExInfoStandard, &attributes));
    MEASURE("CreateFileW and CloseHandle", calls,
            CloseHandle(CreateFileW(name, GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL)));
    MEASURE("CreateFileW of none", calls, CreateFileW(missing, GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL));
    MEASURE("FindFirstFileW and FindClose", calls / 10, FindClose(FindFirstFileW(every, &found)));
    CloseHandle(file);
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
    if (argc > 3)
        others(calls / 10, argv[3]);
    double start = now();
    double sum = stencil(rounds);
    printf("stencil %.3f\n", (now() - start) / ((double)rounds * 4094));
    start = now();
    unsigned long long x = registers(rounds * 4096);
    printf("registers %.3f\n", (now() - start) / ((double)rounds * 4096));
    printf("check %.6g %llu\n", sum, x);
    return 0;
}
