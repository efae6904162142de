/* Files and what else the kernel lays out in memory for programs: stat, directories, epoll, vectors, mappings. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

int main(void) {
    char directory[] = "/tmp/virtus-files-XXXXXX";
    if (!mkdtemp(directory) || chdir(directory)) return 1;
    int file = open("file", O_RDWR | O_CREAT | O_EXCL, 0640);
    struct iovec vectors[] = {{"one ", 4}, {"two ", 4}, {"three", 5}};
    printf("written %zd\n", writev(file, vectors, 3));
    struct timespec times[2] = {{1000000000, 123456789}, {1100000000, 987654321}};
    futimens(file, times);
    struct stat status;
    fstat(file, &status);
    printf("mode %o links %lu size %ld times %ld.%09ld %ld.%09ld\n", status.st_mode, (unsigned long)status.st_nlink,
           (long)status.st_size, (long)status.st_atim.tv_sec, status.st_atim.tv_nsec, (long)status.st_mtim.tv_sec,
           status.st_mtim.tv_nsec);
    char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    printf("mapped %.13s\n", mapped);
    memcpy(mapped + 4, "TWO", 3);
    msync(mapped, 4096, MS_SYNC);
    char text[32] = "";
    printf("read %zd %s\n", pread(file, text, 31, 0), text);
    printf("again %d errno %d\n", open("file", O_CREAT | O_EXCL | O_RDWR, 0600), errno);
    printf("missing %d errno %d\n", open("none/file", O_RDONLY), errno);
    mkdir("b", 0700);
    if (symlink("file", "a")) return 1;
    lstat("a", &status);
    printf("link %d to %zd %.4s\n", S_ISLNK(status.st_mode), readlink("a", text, sizeof text), text);
    struct dirent **entries;
    int count = scandir(".", &entries, NULL, by_name);
    for (int i = 0; i < count; i++) printf("%s:%d ", entries[i]->d_name, entries[i]->d_type);
    putchar('\n');

    int ends[2], poller = epoll_create1(0), counter = eventfd(5, 0);
    if (pipe2(ends, O_NONBLOCK)) return 1;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1122334455667788}, found[4];
    epoll_ctl(poller, EPOLL_CTL_ADD, ends[0], &event);
    event.data.u64 = 0x99aabbccddeeff00;
    epoll_ctl(poller, EPOLL_CTL_ADD, counter, &event);
    printf("one ready: %d %lx\n", epoll_wait(poller, found, 4, 0), found[0].data.u64);
    if (write(ends[1], "x", 1) != 1) return 1;
    int ready = epoll_wait(poller, found, 4, 0);
    printf("both ready: %d %lx\n", ready, found[0].data.u64 ^ found[1].data.u64);
    struct pollfd asked[] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}};
    printf("poll %d %x %x\n", poll(asked, 2, 0), asked[0].revents, asked[1].revents);

    int pair[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair)) return 1;
    struct iovec part = {"message", 7};
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &file, sizeof file);
    printf("sent %zd", sendmsg(pair[0], &message, 0));
    char taken[16] = "";
    part = (struct iovec){taken, sizeof taken};
    message.msg_controllen = sizeof control;
    memset(control, 0, sizeof control);
    printf(" taken %zd %s", recvmsg(pair[1], &message, 0), taken);
    int passed;
    memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof passed);
    memset(text, 0, sizeof text);
    printf(" file %zd %.13s\n", pread(passed, text, 13, 0), text);

    struct utsname name;
    uname(&name);
    struct statfs system;
    printf("%s %s statfs %d\n", name.sysname, name.machine, statfs(".", &system) == 0 && system.f_bsize > 0);
    if (chdir("/") == 0) {
        char path[64];
        static const char *const names[] = {"/file", "/a", "/b", ""};
        for (int i = 0; i < 4; i++) {
            snprintf(path, sizeof path, "%s%s", directory, names[i]);
            remove(path);
        }
    }
    return 0;
}
