/* What the host itself takes for a system call that is answered through seccomp's user notification: the least that any
   supervisor can do, in C. usage: notified CALLS NUMBER: microseconds for each call of NUMBER, all answered ENOSYS. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SET_FLAGS SECCOMP_IOW(4, __u64) /* since Linux 6.6, newer than Debian 12's headers */
#define SYNC_WAKE_UP 1

static void pass(int socket, int *fd, int sends) {
    char byte = 0, control[CMSG_SPACE(sizeof *fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (!sends) {
        if (recvmsg(socket, &message, 0) != 1) exit(1);
        memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof *fd);
        return;
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof *fd);
    memcpy(CMSG_DATA(header), fd, sizeof *fd);
    if (sendmsg(socket, &message, 0) != 1) exit(1);
}

static void call(int socket, long calls, long number) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {4, program};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
    if (listener < 0) exit(1);
    pass(socket, &listener, 1);
    close(listener);
    syscall(number); /* the supervisor is there once this has its answer */
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long i = 0; i < calls; i++) syscall(number);
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%.4f\n", ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / calls / 1e3);
}

int main(int count, char **words) {
    int ends[2], listener;
    if (count != 3 || socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) return 2;
    if (!fork()) {
        close(ends[0]);
        call(ends[1], atol(words[1]), atol(words[2]));
        return 0;
    }
    close(ends[1]);
    pass(ends[0], &listener, 0);
    ioctl(listener, SET_FLAGS, SYNC_WAKE_UP);
    for (;;) {
        struct seccomp_notif notification = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notification)) return errno != ENOENT;
        struct seccomp_notif_resp response = {.id = notification.id, .error = -ENOSYS};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response)) return 1;
    }
}
