/* Fibers that are deleted while the thread whose TEB they had goes on, and calls functions all the time. */
#include <stdio.h>
#include <windows.h>

static void WINAPI fiber(void *main)
{
    for (;;)
        SwitchToFiber(main);
}

int main(void)
{
    wchar_t path[MAX_PATH];
    DWORD length = 0;
    void *main = ConvertThreadToFiber(0);
    for (int i = 0; i < 40; i++) {
        void *other = CreateFiber(0, fiber, main);
        SwitchToFiber(other);
        DeleteFiber(other);
        for (volatile int spin = 0; spin < 3000000; spin++)
            ; /* no call, while the fiber's stack is given up */
        length += GetTempPathW(MAX_PATH, path) > 0;
    }
    printf("%lu\n", length);
    return 0;
}
