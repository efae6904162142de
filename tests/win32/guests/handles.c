/* What functions of handles and open files say, in every case of theirs, for one way of serving them to be compared with another. */
#include <stdio.h>
#include <string.h>
#include <windows.h>
#include <winternl.h>

NTSTATUS NTAPI NtReadFile(HANDLE, HANDLE, PIO_APC_ROUTINE, PVOID, PIO_STATUS_BLOCK, PVOID, ULONG, PLARGE_INTEGER, PULONG);
NTSTATUS NTAPI NtWriteFile(HANDLE, HANDLE, PIO_APC_ROUTINE, PVOID, PIO_STATUS_BLOCK, PVOID, ULONG, PLARGE_INTEGER, PULONG);

static void tell(const char *what, unsigned long long value)
{
    printf("%s: %llu, error %lu\n", what, value, GetLastError());
    SetLastError(77);
}

static void look(const char *name, HANDLE handle)
{
    DWORD mode = 5, count = 9;
    LARGE_INTEGER size = {.QuadPart = -1}, zero = {0}, place = {.QuadPart = -1};
    BY_HANDLE_FILE_INFORMATION about;
    printf("-- %s\n", name);
    tell("type", GetFileType(handle));
    tell("mode", GetConsoleMode(handle, &mode));
    if (GetFileType(handle) == FILE_TYPE_CHAR)
        return;
    tell("size", GetFileSizeEx(handle, &size));
    memset(&about, 0, sizeof about);
    GetFileInformationByHandle(handle, &about);
    if (about.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)
        size.QuadPart = about.nFileSizeLow = 0; /* of the host's, as many as stand in it just now */
    else
        tell("small", about.nFileSizeLow);
    tell("which", size.QuadPart);
    tell("place", SetFilePointerEx(handle, zero, &place, FILE_CURRENT));
    tell("which", place.QuadPart);
    memset(&about, 0, sizeof about);
    tell("about", GetFileInformationByHandle(handle, &about));
    tell("attributes", about.dwFileAttributes);
    tell("links", about.nNumberOfLinks);
    FILETIME created = {0}, used = {0}, written = {0};
    if (GetFileTime(handle, &created, &used, &written))
        tell("same times", !memcmp(&created, &about.ftCreationTime, 8) && !memcmp(&used, &about.ftLastAccessTime, 8) &&
                               !memcmp(&written, &about.ftLastWriteTime, 8));
}

static void make_full(const wchar_t *name)
{
    wchar_t full[300], *last;
    for (DWORD capacity = 0; capacity < 300; capacity += 26) {
        wmemset(full, L'#', 300);
        last = full + 299;
        DWORD got = GetFullPathNameW(name, capacity, capacity == 52 ? NULL : full, capacity % 3 ? &last : NULL);
        full[299] = 0;
        printf("%ls %lu: %lu %ls %lld, error %lu\n", name, capacity, got, wcschr(full, L'#') == full ? L"-" : full,
               last ? (long long)(last - full) : -1, GetLastError());
    }
}

static void make_names(void)
{
    static const wchar_t *const parts[] = {L"a", L".", L"..", L"con", L"nul.txt", L"console", L"b.c", L"d.", L"e ",
                                           L".hidden", L"com1", L"lpt", L"f:", L"", L"Aux", L"\u00e4\u20ac", L"long name.ext"};
    static const wchar_t *const separators[] = {L"\\", L"/", L"\\\\"};
    wchar_t name[100];
    unsigned state = 1;
    for (int i = 0; i < 120; i++) {
        name[0] = 0;
        for (unsigned n = 1 + i % 4; n; n--) {
            state = state * 1103515245 + 12345;
            wcscat(name, parts[(state >> 16) % (sizeof parts / sizeof *parts)]);
            if (n > 1 || (state >> 8) % 8 == 0)
                wcscat(name, separators[(state >> 24) % 3]);
        }
        make_full(name);
    }
    make_full(L"");
}

int main(void)
{
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    char buffer[64] = {0}, large[10000];
    DWORD count;
    LARGE_INTEGER place, where;
    IO_STATUS_BLOCK block;
    HANDLE reader, writer, copy;
    HANDLE file = CreateFileA("made.bin", GENERIC_READ | GENERIC_WRITE, 7, NULL, CREATE_ALWAYS, 0, NULL);
    HANDLE input = CreateFileA("made.bin", GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL);
    HANDLE end = CreateFileA("made.bin", FILE_APPEND_DATA, 7, NULL, OPEN_EXISTING, 0, NULL);
    HANDLE slow = CreateFileA("made.bin", GENERIC_READ, 7, NULL, OPEN_EXISTING, FILE_FLAG_OVERLAPPED, NULL);
    HANDLE nothing = CreateFileA("NUL", GENERIC_READ | GENERIC_WRITE, 7, NULL, OPEN_EXISTING, 0, NULL);
    HANDLE directory = CreateFileA(".", 0, 7, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
    HANDLE event = CreateEventA(NULL, TRUE, FALSE, NULL);
    SetLastError(77);
    memset(large, 'x', sizeof large);
    tell("write", WriteFile(file, "twelve bytes", 12, &count, NULL));
    tell("count", count);
    tell("write none", WriteFile(file, large, 0, &count, NULL));
    tell("count", count);
    tell("write to input", WriteFile(input, "a", 1, &count, NULL));
    tell("count", count);
    tell("append", WriteFile(end, " and more", 9, &count, NULL));
    tell("count", count);
    tell("write to nothing", WriteFile(nothing, large, sizeof large, &count, NULL));
    tell("count", count);
    tell("read", ReadFile(input, buffer, 6, &count, NULL));
    tell("count", count);
    printf("<%s>\n", buffer);
    tell("read on", ReadFile(input, buffer, sizeof buffer, &count, NULL));
    tell("count", count);
    tell("read at the end", ReadFile(input, buffer, sizeof buffer, &count, NULL));
    tell("count", count);
    tell("read of nothing", ReadFile(nothing, buffer, sizeof buffer, &count, NULL));
    tell("count", count);
    tell("read of an output", ReadFile(end, buffer, sizeof buffer, &count, NULL));
    for (int method = 0; method < 4; method++)
        for (int distance = -30; distance <= 30; distance += 15) {
            place.QuadPart = distance;
            where.QuadPart = -1;
            tell("seek", SetFilePointerEx(input, place, &where, method));
            tell("place", where.QuadPart);
        }
    memset(&block, 7, sizeof block);
    place.QuadPart = 3;
    SetFilePointerEx(input, place, NULL, FILE_BEGIN);
    tell("native read", NtReadFile(input, NULL, NULL, NULL, &block, buffer, 4, NULL, NULL));
    printf("%lx %llu <%.4s>\n", (unsigned long)block.Status, (unsigned long long)block.Information, buffer);
    tell("native read there", NtReadFile(input, NULL, NULL, NULL, &block, buffer, 4, &place, NULL));
    printf("%lx %llu <%.4s>\n", (unsigned long)block.Status, (unsigned long long)block.Information, buffer);
    place.QuadPart = 0;
    SetFilePointerEx(input, place, NULL, FILE_END);
    tell("native end", NtReadFile(input, NULL, NULL, NULL, &block, buffer, 4, NULL, NULL) & 0xffffffff);
    printf("%lx %llu\n", (unsigned long)block.Status, (unsigned long long)block.Information);
    tell("native none", NtReadFile(input, NULL, NULL, NULL, &block, buffer, 0, NULL, NULL) & 0xffffffff);
    tell("native write", NtWriteFile(file, NULL, NULL, NULL, &block, "native", 6, NULL, NULL));
    printf("%lx %llu\n", (unsigned long)block.Status, (unsigned long long)block.Information);
    tell("native refusal", NtWriteFile(input, NULL, NULL, NULL, &block, "native", 6, NULL, NULL) & 0xffffffff);
    tell("native nobody", NtReadFile((HANDLE)0x7770, NULL, NULL, NULL, &block, buffer, 4, NULL, NULL) & 0xffffffff);
    CreatePipe(&reader, &writer, NULL, 1 << 16);
    SetLastError(77);
    tell("pipe", WriteFile(writer, large, sizeof large, &count, NULL));
    tell("count", count);
    tell("little", WriteFile(writer, "little", 6, &count, NULL));
    tell("count", count);
    tell("pipe", ReadFile(reader, large, sizeof large, &count, NULL));
    tell("count", count);
    tell("little", ReadFile(reader, large, sizeof large, &count, NULL));
    tell("count", count);
    look("file", file);
    look("input", input);
    look("overlapped", slow);
    look("nothing", nothing);
    look("directory", directory);
    look("event", event);
    look("pipe", reader);
    look("none", (HANDLE)0x7770);
    look("high", (HANDLE)0x123456789abcdef0ull);
    look("invalid", INVALID_HANDLE_VALUE);
    DuplicateHandle(GetCurrentProcess(), input, GetCurrentProcess(), &copy, 0, FALSE, DUPLICATE_SAME_ACCESS);
    CloseHandle(input);
    CloseHandle(reader);
    SetLastError(77);
    look("closed", input);
    look("copy", copy);
    tell("broken pipe", WriteFile(writer, "a", 1, &count, NULL));
    for (int which = -9; which >= -13; which--)
        tell("standard", GetStdHandle(which) == INVALID_HANDLE_VALUE);
    tell("set", SetStdHandle(STD_ERROR_HANDLE, event));
    tell("standard", GetStdHandle(STD_ERROR_HANDLE) == event);
    tell("pages", GetConsoleCP() == GetConsoleOutputCP());
    tell("set page", SetConsoleOutputCP(1252));
    tell("page", GetConsoleOutputCP());
    tell("set page", SetConsoleCP(850));
    tell("page", GetConsoleCP());
    tell("set no page", SetConsoleCP(7));
    tell("page", GetConsoleCP());
    tell("module", GetModuleHandleW(NULL) == GetModuleHandleA("handles.exe"));
    tell("lead byte", IsDBCSLeadByte(0x81));
    tell("others", SwitchToThread() < 2);
    make_names();
    CreateDirectoryA("below", NULL);
    SetCurrentDirectoryA("below");
    make_full(L"a/b");
    SetCurrentDirectoryA("\\");
    make_full(L".\\a");
    return 0;
}
