/* Opens, asks for and enumerates files in every way that machine code may serve, and in ways that it must not: each
   result in a line. To be run in an empty directory, by one thread and then by four. */
#define _WIN32_WINNT 0x0A00
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

static const wchar_t *const NAMES[] = {
    L"plain.txt", L"PLAIN.TXT", L".\\plain.txt", L"./plain.txt", L"sub\\deep.txt", L"sub/deep.txt", L"SUB\\deep.txt",
    L"sub\\Deep.txt", L"sub", L"Sub", L"sub\\", L"sub\\.", L"sub\\..", L"sub\\..\\plain.txt", L"none", L"none\\none",
    L"none\\none\\none", L"sub\\none", L"SUB\\none", L"plain.txt\\none", L"plain.txt.", L"plain.txt ", L"con", L"con.txt",
    L"console.txt", L"conin$", L"nul", L"NUL.txt", L"aux", L"auxiliary.txt", L"com1", L"com1.txt", L"comma.txt", L"lpt9",
    L"prn.c", L"sub\\nul", L"nul\\plain.txt", L"", L".", L"..", L"\\", L"*", L"pl?in.txt", L"a<b", L"a|b", L"a\"b",
    L"plain.txt:stream", L"plain.txt::$DATA", L"caf\xE9.txt", L"none\xE9.txt", L"read-only.txt", L"a;b,c=d.txt",
    L"-._~!@#$%^&()'+[]{}`.txt", L"no-._~!@#$%^&()'+[]{}`.txt", L"\x7F", L"one\\\\two", L"sub\\\\deep.txt", L".hidden",
    L"..hidden", L"...", L".hidden\\x", L"link", L"dangling", L"Q:\\none", L"C:\\none", L"Z:\\", L"Z:", L"Z:\\none-at-all",
    L"z:/none-at-all", L"\\\\?\\Z:\\none-at-all", L"\\\\.\\Z:\\none-at-all", L"\\??\\Z:\\none-at-all", L"\\\\server\\share"};
enum { COUNT = sizeof NAMES / sizeof *NAMES };
static wchar_t here[MAX_PATH], made[COUNT][2 * MAX_PATH];

static char text[1 << 22]; /* printed as a whole: each character costs the runtime a lock */
static int used;
#define print(...) (used += snprintf(text + used, sizeof text - used, __VA_ARGS__))

static void put(const wchar_t *name)
{
    HANDLE file = CreateFileW(name, GENERIC_WRITE, 0, NULL, CREATE_NEW, 0, NULL);
    DWORD done;
    WriteFile(file, "twelve bytes", 12, &done, NULL);
    CloseHandle(file);
}

static void information(HANDLE file)
{
    BY_HANDLE_FILE_INFORMATION found = {0};
    FILE_BASIC_INFO basic;
    LARGE_INTEGER size = {0};
    char data[16] = "";
    DWORD count = 0;
    wchar_t path[2 * MAX_PATH];
    BOOL read = ReadFile(file, data, sizeof data, &count, NULL);
    print(" read %d %lu %s", read, count, data);
    if (GetFileInformationByHandle(file, &found))
        print(" attributes %lx links %lu", found.dwFileAttributes, found.nNumberOfLinks);
    if (!(found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)) /* whose sizes the host makes up */
        print(" size %lu %lu", found.nFileSizeLow, GetFileSize(file, NULL));
    GetFileSizeEx(file, &size);
    if (GetFileInformationByHandleEx(file, FileBasicInfo, &basic, sizeof basic))
        print(" basic %lx", basic.FileAttributes);
    if (GetFinalPathNameByHandleW(file, path, 2 * MAX_PATH, 0))
        print(" at %ls", wcsrchr(path, L'\\'));
}

enum { ALL, SOME, QUIET }; /* what is tried with a name; quietly, nothing is printed */

static void one(const wchar_t *name, int how)
{
    static const DWORD ACCESS[] = {0, GENERIC_READ, FILE_READ_ATTRIBUTES, GENERIC_READ | GENERIC_WRITE},
                       FLAGS[] = {0, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS},
                       SHARES[] = {0, FILE_SHARE_READ, 7};
    WIN32_FILE_ATTRIBUTE_DATA data;
    memset(&data, 0, sizeof data);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 3; k++) {
                if (how != ALL && (i == 0 || i == 3 || j == 2 || SHARES[k] != 7))
                    continue;
                SetLastError(99);
                HANDLE file = CreateFileW(name, ACCESS[i], SHARES[k], NULL, OPEN_EXISTING, FLAGS[j], NULL);
                DWORD error = GetLastError();
                if (how != QUIET)
                    print("open %d %d %d: %d %lu", i, j, k, file != INVALID_HANDLE_VALUE, error);
                if (how != QUIET && file != INVALID_HANDLE_VALUE)
                    information(file);
                if (file != INVALID_HANDLE_VALUE && !CloseHandle(file))
                    print(" not closed");
                if (how != QUIET)
                    print("\n");
            }
    SetLastError(99);
    DWORD attributes = GetFileAttributesW(name), error = GetLastError();
    BOOL more = GetFileAttributesExW(name, GetFileExInfoStandard, &data);
    if (how != QUIET)
        print("attributes %lx %lu; %d %lx %lu %lu times %d\n", attributes, error, more, data.dwFileAttributes,
               data.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? 0 : data.nFileSizeLow, GetLastError(),
               data.ftLastWriteTime.dwHighDateTime != 0);
}

static void all(int how)
{
    for (int i = 0; i < COUNT; i++) {
        if (how != QUIET)
            print("%d\n", i);
        one(NAMES[i], how);
        if (made[i][0])
            one(made[i], how == ALL ? SOME : how);
    }
}

static void enumerate(const wchar_t *pattern)
{
    WIN32_FIND_DATAW found;
    HANDLE search = FindFirstFileW(pattern, &found);
    print("search %ls: %d %lu\n", pattern, search != INVALID_HANDLE_VALUE, search == INVALID_HANDLE_VALUE ? GetLastError() : 0);
    if (search == INVALID_HANDLE_VALUE)
        return;
    int count = 0;
    do {
        if (count++ < 40)
            print("  %lx %lu %lu %d %d ", found.dwFileAttributes, found.nFileSizeHigh, found.nFileSizeLow,
                   found.ftCreationTime.dwHighDateTime != 0, found.cAlternateFileName[0]);
        for (wchar_t *at = found.cFileName; count <= 40 && *at; at++)
            print("%x ", *at);
        if (count <= 40)
            print("\n");
    } while (FindNextFileW(search, &found));
    print("%d, %lu", count, GetLastError());
    print(" again %d %lu,", FindNextFileW(search, &found), GetLastError());
    print(" %d", FindClose(search));
    print(" %d %lu\n", FindClose(search), GetLastError());
}

static HANDLE open(DWORD access, DWORD share)
{
    HANDLE file = CreateFileW(L"plain.txt", access, share, NULL, OPEN_EXISTING, 0, NULL);
    print("share %lx %lu: %d %lu\n", access, share, file != INVALID_HANDLE_VALUE, file == INVALID_HANDLE_VALUE ? GetLastError() : 0);
    return file;
}

static void shares(void)
{
    HANDLE first = open(GENERIC_READ, FILE_SHARE_READ);
    open(GENERIC_WRITE, 7); /* refused: the first does not let anybody write */
    print("delete %d %lu\n", DeleteFileW(L"plain.txt"), GetLastError());
    HANDLE second = open(GENERIC_READ, 7), other;
    print("duplicate %d\n", DuplicateHandle(GetCurrentProcess(), first, GetCurrentProcess(), &other, 0, FALSE, 2));
    CloseHandle(first);
    open(GENERIC_WRITE, 7); /* still */
    CloseHandle(other);
    other = open(GENERIC_WRITE, 7);
    open(GENERIC_READ, FILE_SHARE_READ); /* refused: somebody writes */
    first = open(0, FILE_SHARE_READ);    /* asks only */
    CloseHandle(first);
    CloseHandle(other);
    CloseHandle(second);
    first = open(GENERIC_WRITE, 0);
    open(GENERIC_READ, 7);
    CloseHandle(first);
    first = open(GENERIC_READ, 7);
    CloseHandle(first);
    print("closed twice %d %lu\n", CloseHandle(first), GetLastError());
    print("no handle %d %lu\n", CloseHandle((HANDLE)0xC0000), GetLastError());
}

static void many(void)
{
    static HANDLE handles[1100];
    DWORD count, opened = 0, distinct = 0;
    for (int i = 0; i < 1100; i++)
        opened += (handles[i] = CreateFileW(L"plain.txt", GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL)) != INVALID_HANDLE_VALUE;
    for (int i = 0; i < 1100; i++) {
        char data[2] = "";
        for (int j = 0; j < 3; j++)
            ReadFile(handles[i], data, 1, &count, NULL);
        distinct += data[0] == 'e' && SetFilePointer(handles[i], 0, NULL, FILE_CURRENT) == 3;
    }
    for (int i = 0; i < 1100; i++)
        opened += CloseHandle(handles[i]);
    print("many %lu %lu\n", opened, distinct);
}

static int rounds = 1;

static DWORD WINAPI thread(void *unused)
{
    for (int i = 0; i < rounds; i++)
        all(QUIET);
    return 0;
}

int main(int argc, char **argv)
{
    DWORD before, after;
    rounds = argc > 1 ? atoi(argv[1]) : rounds;
    GetCurrentDirectoryW(MAX_PATH, here);
    CreateDirectoryW(L"sub", NULL);
    put(L"plain.txt");
    put(L"sub\\deep.txt");
    put(L"console.txt");
    put(L"auxiliary.txt");
    put(L"comma.txt");
    put(L"caf\xE9.txt");
    put(L"read-only.txt");
    put(L"a;b,c=d.txt");
    put(L"-._~!@#$%^&()'+[]{}`.txt");
    put(L".hidden");
    put(L"..hidden");
    SetFileAttributesW(L"read-only.txt", FILE_ATTRIBUTE_READONLY);
    for (int i = 0; i < COUNT; i++)
        if (NAMES[i][0] && NAMES[i][0] != L'.' && NAMES[i][0] != L'\\' && NAMES[i][1] != L':') {
            wcscpy(made[i], i % 2 ? L"\\\\?\\" : L"");
            wcscat(wcscat(wcscat(made[i], here), L"\\"), NAMES[i]);
        }
    Sleep(200); /* so that directories count as settled */
    GetProcessHandleCount(GetCurrentProcess(), &before);
    all(ALL);
    all(SOME);
    put(L"none"); /* is not missing any more */
    put(L"sub\\none");
    all(SOME);
    DeleteFileW(L"none");
    MoveFileW(L"sub\\none", L"sub\\NONE2");
    all(SOME);
    shares();
    many();
    enumerate(L"*");
    enumerate(L".\\*");
    enumerate(L"sub\\*");
    enumerate(L"SUB\\*");
    enumerate(L"sub\\*.txt");
    enumerate(L"sub\\none2");
    enumerate(L"none\\*");
    enumerate(L"plain.txt\\*");
    enumerate(L"*.none");
    for (int i = 0; i < 1000; i++) {
        wchar_t name[80];
        swprintf(name, 80, L"sub\\a name that is so long that a thousand of them are many bytes %d", i);
        put(name);
    }
    enumerate(L"sub\\*");
    HANDLE threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = CreateThread(NULL, 0, thread, NULL, 0, NULL);
    WaitForMultipleObjects(4, threads, TRUE, INFINITE);
    for (int i = 0; i < 4; i++)
        CloseHandle(threads[i]);
    GetProcessHandleCount(GetCurrentProcess(), &after);
    print("handles %d\n", (int)(after - before));
    fwrite(text, 1, used, stdout);
    return 0;
}
