/* Drives that volumes are: usage: drives [child] */
#include <stdio.h>
#include <string.h>
#include <windows.h>

static const char *whole(const char *name, char *text) {
    return GetFullPathNameA(name, MAX_PATH, text, NULL) ? text : "?";
}

int main(int count, char **words) {
    char text[MAX_PATH], other[MAX_PATH], third[MAX_PATH];
    if (count > 1) {
        GetModuleFileNameA(NULL, text, sizeof text);
        printf("%s in ", text);
        GetCurrentDirectoryA(sizeof text, text);
        printf("%s\n", text);
        return 0;
    }
    printf("drives %lx, kinds %u %u %u\n", GetLogicalDrives(), GetDriveTypeA("d:\\"), GetDriveTypeA("Z:\\"),
           GetDriveTypeA("Q:\\"));
    FILE *file = fopen("D:\\SUB\\Hello.TXT", "r");
    if (file == NULL || fgets(text, sizeof text, file) == NULL) return 1;
    fclose(file);
    printf("read %s\n", text);
    file = fopen("d:/new", "w");
    printf("%s\n", file ? "written" : "refused");
    if (file) fclose(file);
    if (!SetCurrentDirectoryA("D:\\sub")) return 2;
    printf("%s %s %s\n", whole("x", text), whole("\\x", other), whole("z:\\x", third));
    HANDLE handle = CreateFileA("hello.txt", GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
    if (!GetFinalPathNameByHandleA(handle, text, sizeof text, 0)) return 3;
    printf("%s\n", text);
    fflush(stdout);
    STARTUPINFOA start = {.cb = sizeof start};
    PROCESS_INFORMATION process;
    strcpy(text, "D:\\drives.exe child");
    if (!CreateProcessA(NULL, text, NULL, NULL, FALSE, 0, NULL, NULL, &start, &process)) return 4;
    WaitForSingleObject(process.hProcess, INFINITE);
    return GetFileAttributesA("D:\\..\\..\\etc") != INVALID_FILE_ATTRIBUTES || fopen("C:\\sub\\hello.txt", "r") != NULL;
}
