/* Processes: fork, exec of itself, vfork, pipes, what wait tells. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int variable = 1;

static void told(const char *what, pid_t child) {
    int status;
    waitpid(child, &status, 0);
    if (WIFEXITED(status)) printf("%s: exited %d\n", what, WEXITSTATUS(status));
    if (WIFSIGNALED(status)) printf("%s: signal %d\n", what, WTERMSIG(status));
    fflush(stdout);
}

int main(int count, char **words) {
    if (count > 1) {
        printf("executed with %s and %s\n", words[1], getenv("GUEST"));
        return 5;
    }
    int ends[2];
    char text[64] = "";
    if (pipe(ends)) return 1;
    pid_t child = fork();
    if (!child) {
        variable = 2; /* its own copy */
        dprintf(ends[1], "child: variable %d", variable);
        _exit(3);
    }
    close(ends[1]);
    if (read(ends[0], text, sizeof text - 1) < 0) return 1;
    printf("%s, parent: %d\n", text, variable);
    told("forked", child);

    setenv("GUEST", "yes", 1);
    fflush(stdout);
    child = fork();
    if (!child) {
        execl(words[0], words[0], "word", (char *)NULL);
        _exit(99);
    }
    told("executed", child);

    child = vfork();
    if (!child) {
        variable = 3; /* the parent's memory */
        _exit(4);
    }
    told("vforked", child);
    printf("variable %d\n", variable);
    fflush(stdout);

    child = fork();
    if (!child) abort();
    told("aborted", child);
    child = fork();
    if (!child) {
        for (;;) {
        }
    }
    kill(child, SIGTERM);
    told("terminated", child);

    return 0;
}
