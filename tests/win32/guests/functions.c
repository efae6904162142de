/* Says what functions of Windows do: the same lines on every system that does them right.
   Built by x86_64-w64-mingw32-gcc; run under each technique, and under Wine for comparison. */
#define _WIN32_WINNT 0x0A00
#include <winsock2.h>
#include <windows.h>
#include <shellapi.h>
#include <wincrypt.h>
#include <stdio.h>
#include <string.h>

static void say(const char *what, long long value) { printf("%s: %lld\n", what, value); }
static void text(const char *what, const wchar_t *value) {
    char buffer[600];
    if (!WideCharToMultiByte(CP_UTF8, 0, value, -1, buffer, sizeof buffer, 0, 0)) strcpy(buffer, "?");
    printf("%s: %s\n", what, buffer);
}

/* memory */
static void memory(void) {
    MEMORY_BASIC_INFORMATION info;
    DWORD old;
    char *base = VirtualAlloc(0, 0x5000, MEM_RESERVE, PAGE_READWRITE);
    say("reserve aligned", ((ULONG_PTR)base & 0xffff) == 0);
    say("commit", VirtualAlloc(base + 0x1000, 0x2000, MEM_COMMIT, PAGE_READWRITE) == base + 0x1000);
    base[0x1000] = 1;
    VirtualQuery(base + 0x1800, &info, sizeof info);
    printf("query: %d %llx %lx %lx %lx\n", info.AllocationBase == base, (long long)info.RegionSize, info.State,
           info.Protect, info.Type);
    VirtualQuery(base, &info, sizeof info);
    printf("query reserved: %llx %lx %lx\n", (long long)info.RegionSize, info.State, info.AllocationProtect);
    say("protect", VirtualProtect(base + 0x1000, 0x1000, PAGE_READONLY, &old));
    say("old", old);
    say("protect reserved", VirtualProtect(base, 0x1000, PAGE_READONLY, &old));
    say("error", GetLastError());
    say("release part", VirtualFree(base, 0x1000, MEM_RELEASE));
    say("error", GetLastError());
    say("decommit", VirtualFree(base + 0x1000, 0x1000, MEM_DECOMMIT));
    say("commit again", VirtualAlloc(base + 0x1000, 0x1000, MEM_COMMIT, PAGE_READWRITE) == base + 0x1000);
    say("is zero", base[0x1000]);
    say("release", VirtualFree(base, 0, MEM_RELEASE));
    HANDLE heap = HeapCreate(0, 0, 0);
    char *block = HeapAlloc(heap, HEAP_ZERO_MEMORY, 100);
    strcpy(block, "kept");
    block = HeapReAlloc(heap, HEAP_ZERO_MEMORY, block, 100000);
    printf("heap: %s %d %lld\n", block, block[99999], (long long)HeapSize(heap, 0, block));
    say("free", HeapFree(heap, 0, block));
    say("destroy", HeapDestroy(heap));
    VirtualQuery(&old, &info, sizeof info);
    printf("stack: %lx %lx %lx\n", info.State, info.Protect, info.Type);
    VirtualQuery((void *)memory, &info, sizeof info);
    printf("image: %lx %lx %d\n", info.State, info.Type, info.AllocationBase == GetModuleHandleA(0));
}

/* threads and what they wait for */
static CRITICAL_SECTION section;
static SRWLOCK lock = SRWLOCK_INIT;
static CONDITION_VARIABLE more = CONDITION_VARIABLE_INIT;
static volatile LONG counter, plain, queued;
static DWORD slot;
static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
static BOOL CALLBACK initialise(PINIT_ONCE o, void *parameter, void **context) {
    InterlockedIncrement(&counter);
    *context = (void *)0x40;
    return TRUE;
}
static DWORD WINAPI count(void *parameter) {
    void *context = 0;
    TlsSetValue(slot, parameter);
    InitOnceExecuteOnce(&once, initialise, 0, &context);
    for (int i = 0; i < 500; i++) {
        EnterCriticalSection(&section);
        EnterCriticalSection(&section);
        plain++;
        LeaveCriticalSection(&section);
        LeaveCriticalSection(&section);
        AcquireSRWLockExclusive(&lock);
        plain++;
        ReleaseSRWLockExclusive(&lock);
        if (i % 100 == 0) SwitchToThread();
    }
    return (DWORD)(ULONG_PTR)TlsGetValue(slot) + (context == (void *)0x40);
}
static DWORD WINAPI consume(void *parameter) {
    AcquireSRWLockExclusive(&lock);
    while (!queued) SleepConditionVariableSRW(&more, &lock, INFINITE, 0);
    queued--;
    ReleaseSRWLockExclusive(&lock);
    return 0;
}
static void CALLBACK call(ULONG_PTR argument) { say("apc", argument); }
static void CALLBACK work(PTP_CALLBACK_INSTANCE instance, void *context, PTP_WORK w) { InterlockedIncrement(context); }
static void WINAPI fiber(void *main) {
    for (int i = 0; i < 3; i++) {
        say("fiber", i);
        SwitchToFiber(main);
    }
}
static DWORD WINAPI ends(void *event) {
    WaitForSingleObject(event, INFINITE);
    ExitThread(77);
}
static DWORD WINAPI abandons(void *mutex) { return WaitForSingleObject(mutex, INFINITE); }
static void threads(void) {
    HANDLE all[4];
    DWORD code, sum = 0;
    InitializeCriticalSection(&section);
    slot = TlsAlloc();
    plain = 0;
    for (int i = 0; i < 4; i++) all[i] = CreateThread(0, 0, count, (void *)(ULONG_PTR)(10 * (i + 1)), 0, 0);
    say("wait all", WaitForMultipleObjects(4, all, TRUE, INFINITE));
    for (int i = 0; i < 4; i++) {
        GetExitCodeThread(all[i], &code);
        sum += code;
        CloseHandle(all[i]);
    }
    say("sum of results", sum);
    say("initialised", counter);
    for (int i = 0; i < 3; i++) all[i] = CreateThread(0, 0, consume, 0, 0, 0);
    for (int i = 0; i < 3; i++) {
        AcquireSRWLockExclusive(&lock);
        queued++;
        ReleaseSRWLockExclusive(&lock);
        WakeConditionVariable(&more);
    }
    say("consumers", WaitForMultipleObjects(3, all, TRUE, 10000));
    HANDLE event = CreateEventW(0, FALSE, FALSE, 0), mutex = CreateMutexW(0, FALSE, 0);
    HANDLE thread = CreateThread(0, 0, ends, event, CREATE_SUSPENDED, 0);
    say("suspended", ResumeThread(thread));
    say("timeout", WaitForSingleObject(thread, 5));
    SetEvent(event);
    say("ended", WaitForSingleObject(thread, INFINITE));
    GetExitCodeThread(thread, &code);
    say("code", code);
    thread = CreateThread(0, 0, abandons, mutex, 0, 0);
    WaitForSingleObject(thread, INFINITE);
    say("abandoned", WaitForSingleObject(mutex, INFINITE));
    say("released", ReleaseMutex(mutex));
    say("not owner", ReleaseMutex(mutex));
    say("error", GetLastError());
    HANDLE semaphore = CreateSemaphoreW(0, 1, 2, 0);
    LONG before;
    say("semaphore", WaitForSingleObject(semaphore, 0));
    say("semaphore", WaitForSingleObject(semaphore, 0));
    say("release", ReleaseSemaphore(semaphore, 2, &before));
    say("before", before);
    say("too many", ReleaseSemaphore(semaphore, 1, 0));
    say("error", GetLastError());
    LARGE_INTEGER due = {.QuadPart = -20000};
    HANDLE timer = CreateWaitableTimerW(0, FALSE, 0);
    say("set timer", SetWaitableTimer(timer, &due, 0, 0, 0, 0));
    say("timer", WaitForSingleObject(timer, INFINITE));
    say("queue apc", QueueUserAPC(call, GetCurrentThread(), 5) != 0);
    say("sleep", SleepEx(1000, TRUE));
    LONG done = 0;
    PTP_WORK item = CreateThreadpoolWork(work, &done, 0);
    for (int i = 0; i < 20; i++) SubmitThreadpoolWork(item);
    WaitForThreadpoolWorkCallbacks(item, FALSE);
    CloseThreadpoolWork(item);
    say("work", done);
    void *main = ConvertThreadToFiber(0), *other = CreateFiber(0, fiber, main);
    for (int i = 0; i < 3; i++) {
        SwitchToFiber(other);
        say("main", i);
    }
    DeleteFiber(other);
    say("convert", ConvertFiberToThread());
    say("named", CreateEventW(0, 1, 0, L"virtus test") != 0);
    say("error", GetLastError());
    say("named", CreateEventW(0, 1, 0, L"virtus test") != 0);
    say("error", GetLastError());
    say("bad handle", WaitForSingleObject((HANDLE)0xbad0, 0) == WAIT_FAILED);
    say("error", GetLastError());
}

/* strings, times, texts */
static void strings(void) {
    wchar_t wide[200];
    char narrow[200];
    WORD types[8];
    BOOL used;
    say("to wide", MultiByteToWideChar(CP_UTF8, 0, "na\xc3\xafve \xe2\x82\xac", -1, wide, 200));
    text("wide", wide);
    say("invalid", MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, "a\xff", -1, wide, 200));
    say("error", GetLastError());
    say("short", MultiByteToWideChar(CP_UTF8, 0, "abcdef", -1, wide, 3));
    say("error", GetLastError());
    say("to 1252", WideCharToMultiByte(1252, 0, L"\u20ac\u4e00", -1, narrow, 200, 0, &used));
    printf("bytes: %x %x %d\n", (unsigned char)narrow[0], (unsigned char)narrow[1], used);
    say("437", WideCharToMultiByte(437, 0, L"\u00e9", 1, narrow, 200, 0, 0));
    printf("byte: %x\n", (unsigned char)narrow[0]);
    say("ordinal", CompareStringOrdinal(L"abC", -1, L"ABc", -1, TRUE));
    say("ordinal", CompareStringOrdinal(L"abC", -1, L"ABc", -1, FALSE));
    say("compare", CompareStringEx(L"en-US", 0, L"a", -1, L"B", -1, 0, 0, 0));
    say("compare", CompareStringEx(L"en-US", 0, L"a", -1, L"A", -1, 0, 0, 0));
    say("compare", CompareStringEx(L"en-US", NORM_IGNORECASE, L"a", -1, L"A", -1, 0, 0, 0));
    say("upper", LCMapStringEx(L"en-US", LCMAP_UPPERCASE, L"stra\u00dfe \u00e9", -1, wide, 200, 0, 0, 0));
    text("upper", wide);
    say("types", GetStringTypeW(CT_CTYPE1, L"aZ9 _\t", 6, types));
    for (int i = 0; i < 6; i++) printf("%x ", types[i] & 0x1ff);
    printf("\n");
    SYSTEMTIME moment = {2024, 2, 0, 29, 23, 5, 9, 7}, back;
    FILETIME ticks;
    say("to file time", SystemTimeToFileTime(&moment, &ticks));
    printf("ticks: %lx%08lx\n", ticks.dwHighDateTime, ticks.dwLowDateTime);
    say("back", FileTimeToSystemTime(&ticks, &back));
    printf("fields: %d %d %d %d %d %d %d %d\n", back.wYear, back.wMonth, back.wDayOfWeek, back.wDay, back.wHour,
           back.wMinute, back.wSecond, back.wMilliseconds);
    moment.wDay = 30;
    say("no such day", SystemTimeToFileTime(&moment, &ticks));
    say("error", GetLastError());
    moment.wDay = 29;
    GetDateFormatEx(L"en-US", 0, &moment, L"ddd, d MMM yyyy", wide, 200, 0);
    text("date", wide);
    GetTimeFormatEx(L"en-US", 0, &moment, L"h:mm tt", wide, 200);
    text("time", wide);
    GetNumberFormatEx(L"en-US", 0, L"-1234567.895", 0, wide, 200);
    text("number", wide);
    GetLocaleInfoEx(L"en-US", LOCALE_SNAME, wide, 200);
    text("locale", wide);
    WORD date, time;
    SystemTimeToFileTime(&moment, &ticks);
    say("dos", FileTimeToDosDateTime(&ticks, &date, &time));
    printf("dos: %x %x\n", date, time);
    ULONG_PTR arguments[] = {(ULONG_PTR)L"one", 42};
    FormatMessageW(FORMAT_MESSAGE_FROM_STRING | FORMAT_MESSAGE_ARGUMENT_ARRAY, L"%1 and %2!04u!%%%n", 0, 0, wide, 200,
                   (va_list *)arguments);
    text("message", wide);
    int n;
    wchar_t **words = CommandLineToArgvW(L"\"a b\\c\" d\\\\\\\"e \"f\"\"g\" \"\"", &n);
    for (int i = 0; i < n; i++) text("word", words[i]);
    LocalFree(words);
    SetEnvironmentVariableW(L"Virtus_Test", L"value");
    say("environment", GetEnvironmentVariableW(L"VIRTUS_TEST", wide, 200));
    say("environment", GetEnvironmentVariableW(L"VIRTUS_TEST", wide, 3));
    ExpandEnvironmentStringsW(L"<%virtus_test%> %none%", wide, 200);
    text("expanded", wide);
    say("environment", GetEnvironmentVariableW(L"VIRTUS_NONE", wide, 200));
    say("error", GetLastError());
}

/* registry, hashes, sockets */
static void others(void) {
    HKEY key;
    DWORD disposition, type, size = 100, value = 7;
    BYTE data[100];
    RegDeleteTreeW(HKEY_CURRENT_USER, L"Software\\VirtusTest");
    say("create", RegCreateKeyExW(HKEY_CURRENT_USER, L"Software\\VirtusTest\\a", 0, 0, 0, KEY_ALL_ACCESS, 0, &key, &disposition));
    say("new", disposition);
    say("set", RegSetValueExW(key, L"n", 0, REG_DWORD, (BYTE *)&value, 4));
    say("set", RegSetValueExW(key, L"s", 0, REG_SZ, (BYTE *)L"text", 10));
    say("query", RegQueryValueExW(key, L"S", 0, &type, data, &size));
    printf("query: %lu %lu\n", type, size);
    size = 3;
    say("short", RegQueryValueExW(key, L"s", 0, &type, data, &size));
    say("none", RegQueryValueExW(key, L"none", 0, &type, data, &size));
    say("close", RegCloseKey(key));
    say("with subkeys", RegDeleteKeyW(HKEY_CURRENT_USER, L"Software\\VirtusTest"));
    say("tree", RegDeleteTreeW(HKEY_CURRENT_USER, L"Software\\VirtusTest"));
    say("gone", RegOpenKeyExW(HKEY_CURRENT_USER, L"Software\\VirtusTest", 0, KEY_READ, &key));
    HCRYPTPROV provider;
    HCRYPTHASH hash;
    say("provider", CryptAcquireContextW(&provider, 0, 0, PROV_RSA_FULL, CRYPT_VERIFYCONTEXT));
    say("hash", CryptCreateHash(provider, CALG_SHA1, 0, 0, &hash));
    CryptHashData(hash, (BYTE *)"abc", 3, 0);
    size = 20;
    CryptGetHashParam(hash, HP_HASHVAL, data, &size, 0);
    for (DWORD i = 0; i < size; i++) printf("%02x", data[i]);
    printf("\n");
    WSADATA winsock;
    say("startup", WSAStartup(0x202, &winsock));
    SOCKET server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int length = sizeof address;
    say("bind", bind(server, (struct sockaddr *)&address, sizeof address));
    say("listen", listen(server, 1));
    say("name", getsockname(server, (struct sockaddr *)&address, &length));
    say("connect", connect(client, (struct sockaddr *)&address, sizeof address));
    SOCKET other = accept(server, 0, 0);
    say("send", send(client, "hello", 5, 0));
    say("receive", recv(other, (char *)data, 100, 0));
    u_long on = 1;
    ioctlsocket(other, FIONBIO, &on);
    say("would block", recv(other, (char *)data, 100, 0));
    say("error", WSAGetLastError());
    say("close", closesocket(client));
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(other, &readable);
    say("select", select(0, &readable, 0, 0, 0));
    say("end", recv(other, (char *)data, 100, 0));
    say("not a socket", closesocket(12345));
    say("error", WSAGetLastError());
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "memory")) memory();
    if (!strcmp(what, "threads")) threads();
    if (!strcmp(what, "strings")) strings();
    if (!strcmp(what, "others")) others();
    fflush(stdout);
    return 42;
}
