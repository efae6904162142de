/* Waits until it is ended. */
#include <stdio.h>
#include <windows.h>

int main(void) {
    puts("waiting");
    fflush(stdout);
    for (;;) Sleep(INFINITE);
}
