/* A Windows program that knows it runs on Linux, and issues Linux system calls itself. Prints what each came to. */
#include <stdio.h>
#include <windows.h>

static long long call(long long number, long long a, long long b, long long c, long long d, long long e) {
    long long result;
    register long long r10 __asm__("r10") = d;
    register long long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
}

int main(int count, char **words) {
    const char *mark = count > 1 ? words[1] : "/nowhere";
    printf("mount %lld\n", call(165, (long long)"none", (long long)"/mnt", (long long)"tmpfs", 0, 0));
    printf("ptrace %lld\n", call(101, 16, 1, 0, 0, 0));
    printf("unshare %lld\n", call(272, 0x10000000, 0, 0, 0, 0));
    printf("peek %lld\n", call(310, 1, 0, 0, 0, 0)); /* process_vm_readv */
    printf("bpf %lld\n", call(321, 0, 0, 0, 0, 0));
    printf("socket %lld\n", call(41, 40, 1, 0, 0, 0)); /* AF_VSOCK */
    printf("open %lld\n", call(2, (long long)mark, 0101, 0644, 0, 0) >= 0 ? 0LL : -1LL); /* O_WRONLY | O_CREAT */
    printf("kill %lld\n", call(62, 1, 9, 0, 0, 0));
    printf("pid %s\n", call(39, 0, 0, 0, 0, 0) < 100 ? "own" : "host");
    fflush(stdout);
    return 0;
}
