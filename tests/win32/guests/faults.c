/* Exceptions of a Windows program: a vectored handler mends the first; which comes second, the first argument says. */
#include <stdio.h>
#include <windows.h>

static volatile int zero;
static int seen;

static LONG CALLBACK handler(EXCEPTION_POINTERS *pointers) {
    EXCEPTION_RECORD *record = pointers->ExceptionRecord;
    if (record->ExceptionCode == EXCEPTION_ACCESS_VIOLATION && record->ExceptionInformation[1] == 0x1234) {
        seen += 1 + (int)record->ExceptionInformation[0];
        pointers->ContextRecord->Rip += 2; /* the length of movl (%rax), %eax */
        pointers->ContextRecord->Rax = 77;
        pointers->ContextRecord->Xmm7.Low = 5;
        return EXCEPTION_CONTINUE_EXECUTION;
    }
    printf("code %08lx\n", record->ExceptionCode);
    fflush(stdout);
    return EXCEPTION_CONTINUE_SEARCH;
}

static int __attribute__((noinline)) overflow(int depth) {
    volatile char room[50000];
    room[0] = (char)depth;
    return overflow(depth + 1) + room[0];
}

static DWORD CALLBACK other(void *argument) {
    (void)argument;
    *(volatile int *)8 = 1;
    return 0;
}

int main(int count, char **words) {
    long long result, low;
    AddVectoredExceptionHandler(1, handler);
    __asm__ volatile("movq $0x1234, %%rax\n\tmovl (%%rax), %%eax\n\tmovq %%xmm7, %1" : "=&a"(result), "=r"(low)::"xmm7");
    printf("mended %lld %lld %d\n", result, low, seen);
    fflush(stdout);
    switch (count > 1 ? *words[1] : 0) {
    case 'd': printf("%d\n", count * 100 / zero); break;
    case 'w': *(volatile int *)8 = 1; break;
    case 'x': ((void (*)(void))0x5000)(); break;
    case 'i': __builtin_trap(); break;
    case 'b': DebugBreak(); break;
    case 'h': __asm__ volatile("hlt"); break;
    case 'f': __asm__ volatile("movl $7, %%ecx\n\tint $0x29" ::: "ecx"); break;
    case 'r': RaiseException(0xE0001234, 0, 0, NULL); break;
    case 'a': GetEnvironmentVariableW((void *)16, NULL, 0); break;
    case 'o': return overflow(0);
    case 't': WaitForSingleObject(CreateThread(NULL, 0, other, NULL, 0, NULL), INFINITE); break;
    case 'e': ExitProcess(0x12345);
    }
    return 3;
}
