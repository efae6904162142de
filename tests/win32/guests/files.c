/* Files, directories, views, pipes and children; prints what must be the same wherever Windows programs run. */
#include <stdio.h>
#include <string.h>
#include <windows.h>

static int compare(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static void list(const char *pattern) {
    WIN32_FIND_DATAA data;
    char *names[64];
    int count = 0;
    HANDLE search = FindFirstFileA(pattern, &data);
    if (search == INVALID_HANDLE_VALUE) {
        printf("%s: error %lu\n", pattern, GetLastError());
        return;
    }
    do
        names[count++] = strdup(data.cFileName);
    while (count < 64 && FindNextFileA(search, &data));
    FindClose(search);
    qsort(names, count, sizeof *names, compare);
    printf("%s:", pattern);
    for (int i = 0; i < count; i++)
        printf(" %s", names[i]);
    printf("\n");
}

static void outcome(const char *what, BOOL done) {
    DWORD error = GetLastError();
    if (done)
        printf("%s 1\n", what);
    else
        printf("%s 0 %lu\n", what, error);
}

static HANDLE make(const char *name, DWORD access, DWORD share, DWORD disposition, DWORD flags) {
    HANDLE file = CreateFileA(name, access, share, 0, disposition, flags, 0);
    printf("open %s %lx %lu: %s %lu\n", name, access, disposition, file == INVALID_HANDLE_VALUE ? "no" : "yes",
           file == INVALID_HANDLE_VALUE ? GetLastError() : 0);
    return file;
}

static void files(void) {
    DWORD n;
    char buffer[100];
    CreateDirectoryA("sub", 0);
    HANDLE one = make("sub\\one.txt", GENERIC_READ | GENERIC_WRITE, 0, CREATE_NEW, 0);
    make("SUB\\ONE.TXT", GENERIC_READ, 7, OPEN_EXISTING, 0);
    WriteFile(one, "0123456789", 10, &n, 0);
    SetFilePointer(one, 3, 0, FILE_BEGIN);
    SetEndOfFile(one);
    printf("size %lu\n", GetFileSize(one, 0));
    CloseHandle(one);
    make("sub\\one.txt", GENERIC_WRITE, 0, CREATE_NEW, 0);
    make("sub\\none\\x", GENERIC_READ, 0, OPEN_EXISTING, 0);
    make("sub\\a?b", GENERIC_READ, 0, OPEN_EXISTING, 0);
    CloseHandle(make("sub\\two", GENERIC_WRITE, 0, CREATE_ALWAYS, FILE_FLAG_DELETE_ON_CLOSE));
    make("sub\\two", GENERIC_READ, 0, OPEN_EXISTING, 0);
    CloseHandle(make("sub\\b.c", GENERIC_WRITE, 0, CREATE_ALWAYS, 0));
    CloseHandle(make("sub\\abc", GENERIC_WRITE, 0, CREATE_ALWAYS, 0));
    list("sub\\*");
    list("sub\\*.*");
    list("sub\\*.txt");
    list("sub\\?.c");
    list("sub\\*.none");
    outcome("move", MoveFileA("sub\\abc", "sub\\b.c"));
    printf("move %d\n", MoveFileExA("sub\\abc", "sub\\b.c", MOVEFILE_REPLACE_EXISTING));
    outcome("remove", RemoveDirectoryA("sub"));
    SetFileAttributesA("sub\\b.c", FILE_ATTRIBUTE_READONLY);
    outcome("delete", DeleteFileA("sub\\b.c"));
    SetFileAttributesA("sub\\b.c", FILE_ATTRIBUTE_NORMAL);
    printf("delete %d\n", DeleteFileA("sub\\b.c"));
    HANDLE view = make("sub\\one.txt", GENERIC_READ | GENERIC_WRITE, 7, OPEN_EXISTING, 0);
    HANDLE section = CreateFileMappingA(view, 0, PAGE_READWRITE, 0, 8, 0);
    char *memory = MapViewOfFile(section, FILE_MAP_WRITE, 0, 0, 0);
    memcpy(memory + 3, "view!", 5);
    UnmapViewOfFile(memory);
    ReadFile(view, buffer, 100, &n, 0);
    printf("view %lu %.*s\n", n, (int)n, buffer);
    OVERLAPPED at = {0};
    printf("lock %d\n", LockFileEx(view, LOCKFILE_EXCLUSIVE_LOCK, 0, 4, 0, &at));
    printf("unlock %d\n", UnlockFileEx(view, 0, 4, 0, &at));
    CloseHandle(section);
    CloseHandle(view);
    printf("delete %d\n", DeleteFileA("sub\\one.txt"));
    printf("remove %d\n", RemoveDirectoryA("sub"));
}

static void pipes(void) {
    DWORD n;
    char buffer[100];
    HANDLE server = CreateNamedPipeA("\\\\.\\pipe\\virtus-test", PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED,
                                     PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE, 1, 4096, 4096, 0, 0);
    OVERLAPPED wait = {0};
    wait.hEvent = CreateEventA(0, TRUE, FALSE, 0);
    outcome("connect", ConnectNamedPipe(server, &wait));
    HANDLE client = make("\\\\.\\pipe\\VIRTUS-TEST", GENERIC_READ | GENERIC_WRITE, 0, OPEN_EXISTING, 0);
    printf("connected %lu\n", WaitForSingleObject(wait.hEvent, 5000));
    make("\\\\.\\pipe\\virtus-test", GENERIC_READ, 0, OPEN_EXISTING, 0);
    OVERLAPPED reading = {0};
    reading.hEvent = wait.hEvent;
    outcome("read", ReadFile(server, buffer, 100, 0, &reading));
    WriteFile(client, "message", 7, &n, 0);
    printf("result %d", GetOverlappedResult(server, &reading, &n, TRUE));
    printf(" %.*s\n", (int)n, buffer);
    CloseHandle(client);
    BOOL at_once = ReadFile(server, buffer, 100, 0, &reading);
    DWORD error = GetLastError();
    if (!at_once && error == ERROR_IO_PENDING && !GetOverlappedResult(server, &reading, &n, TRUE))
        error = GetLastError();
    printf("end %lu\n", error);
    CloseHandle(server);
}

static void children(const char *self) {
    SECURITY_ATTRIBUTES inherited = {sizeof inherited, 0, TRUE};
    HANDLE reader, writer;
    DWORD n, total = 0, code;
    char line[400], buffer[500];
    CreatePipe(&reader, &writer, &inherited, 0);
    SetHandleInformation(reader, HANDLE_FLAG_INHERIT, 0);
    STARTUPINFOA startup = {sizeof startup};
    PROCESS_INFORMATION child;
    startup.dwFlags = STARTF_USESTDHANDLES;
    startup.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    startup.hStdOutput = startup.hStdError = writer;
    sprintf(line, "\"%s\" child \"a b\" \"c\\\"d\"", self);
    SetEnvironmentVariableA("GIVEN", "value");
    if (!CreateProcessA(0, line, 0, 0, TRUE, CREATE_SUSPENDED, 0, 0, &startup, &child)) {
        printf("no child: %lu\n", GetLastError());
        return;
    }
    CloseHandle(writer);
    printf("suspended %lu\n", WaitForSingleObject(child.hProcess, 50));
    printf("resumed %lu\n", ResumeThread(child.hThread));
    while (total < 400 && ReadFile(reader, buffer + total, 400 - total, &n, 0) && n)
        total += n;
    printf("child: %.*s", (int)total, buffer);
    printf("ended %lu\n", WaitForSingleObject(child.hProcess, INFINITE));
    GetExitCodeProcess(child.hProcess, &code);
    printf("code %lx\n", code);
    sprintf(line, "\"%s\" sleep", self);
    CreateProcessA(0, line, 0, 0, FALSE, 0, 0, 0, &startup, &child);
    HANDLE job = CreateJobObjectA(0, 0);
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits);
    printf("assigned %d\n", AssignProcessToJobObject(job, child.hProcess));
    CloseHandle(job);
    printf("killed %lu\n", WaitForSingleObject(child.hProcess, 10000));
    outcome("nowhere", CreateProcessA(0, "nowhere.exe", 0, 0, 0, 0, 0, 0, &startup, &child));
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "child")) {
        char given[50] = "";
        GetEnvironmentVariableA("GIVEN", given, 50);
        printf("%d %s %s %s\n", argc, argv[2], argv[3], given);
        return 0x12345678;
    }
    if (argc > 1 && !strcmp(argv[1], "sleep")) {
        Sleep(60000);
        return 0;
    }
    char self[MAX_PATH];
    GetModuleFileNameA(0, self, MAX_PATH);
    files();
    pipes();
    children(self);
    return 0;
}
