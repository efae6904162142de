/* Two threads open a file for reading that nobody may write meanwhile, one for writing: never both at once. */
#include <stdio.h>
#include <windows.h>

static volatile LONG readers, opened;
static volatile int stop;

static DWORD WINAPI reader(void *unused)
{
    while (!stop) {
        HANDLE file = CreateFileW(L"file", GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
        if (file == INVALID_HANDLE_VALUE)
            continue;
        InterlockedIncrement(&readers);
        InterlockedIncrement(&opened);
        for (volatile int i = 0; i < 50; i++)
            ;
        InterlockedDecrement(&readers);
        CloseHandle(file);
    }
    return 0;
}

int main(void)
{
    HANDLE threads[2];
    int both = 0, written = 0;
    for (int i = 0; i < 2; i++)
        threads[i] = CreateThread(NULL, 0, reader, NULL, 0, NULL);
    for (DWORD end = GetTickCount() + 600; GetTickCount() < end;) {
        HANDLE file = CreateFileW(L"file", GENERIC_WRITE, 7, NULL, OPEN_EXISTING, 0, NULL);
        if (file == INVALID_HANDLE_VALUE)
            continue;
        written++;
        for (int i = 0; i < 20; i++)
            both += readers != 0;
        CloseHandle(file);
    }
    stop = 1;
    WaitForMultipleObjects(2, threads, TRUE, INFINITE);
    printf("%d %d %d\n", both, written > 0, opened > 0);
    return 0;
}
