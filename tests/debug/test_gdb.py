"""GDB itself on guests under the interpreter: breakpoints, steps, registers, memory, backtraces, threads, signals."""

import time
from pathlib import Path

import pytest

from tests.debug.gdb import Client, gdb, guest, program
from tests.emulation.guests import SYSROOT
from virtus.machine.debug.packets import Control

pytestmark = pytest.mark.slow

PLAIN = r"""
#include <stdio.h>
volatile int counter;
char text[16] = "before";
__attribute__((noinline)) double half(int x) { return x / 2.0; }
__attribute__((noinline)) int fib(int n) { counter++; return n < 2 ? n : fib(n - 1) + fib(n - 2); }
int main(void) {
    int sum = fib(6);
    printf("%d %s %g\n", sum, text, half(sum));
    return 3;
}
"""
THREADS = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
volatile int spins, caught;
void on(int number) { caught = number; }
void *work(void *p) {
    spins++;
    spins++;
    return p;
}
int main(int count, char **words) {
    const char *mode = count > 1 ? words[1] : "";
    signal(SIGUSR1, on);
    if (!strcmp(mode, "threads")) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, NULL);
        pthread_join(thread, NULL);
    } else if (!strcmp(mode, "signal")) {
        kill(getpid(), SIGUSR1);
    } else if (!strcmp(mode, "loop")) {
        while (!caught) spins++;
    } else if (!strcmp(mode, "pause")) {
        pause();
    } else if (!strcmp(mode, "fault")) {
        *(volatile int *)16 = 1;
    } else if (!strcmp(mode, "fork")) {
        if (!fork()) { work(NULL); _exit(0); }
        wait(NULL);
        work(NULL);
    } else if (!strcmp(mode, "exec")) {
        execl(words[0], words[0], "signal", NULL);
    }
    printf("caught %d\n", caught);
    return 0;
}
"""


def test_breakpoints_backtraces_registers_memory() -> None:
    with guest(program(PLAIN)) as found:
        output = gdb(
            found.where,
            "info registers pc",
            "break fib if n == 3",
            "continue",
            "backtrace",
            "print n",
            "print/x $sp == (long)$sp",
            'set var text = "after"',
            "delete",
            "finish",
            "tbreak half",
            "continue",
            "finish",
            "print $fa0.double",
            "print $frm",
            "x/i $pc",
            "print fib(5)",
            "info auxv",
            "monitor figures",
            "continue",
        )
        assert found.end() == ("8 after 4\n", 3)
    for expected in (
        "in _start ()",
        "Breakpoint 1, fib (n=3)",
        "#3  ",
        "in main () at ",
        "$1 = 3",
        "Value returned is $3 = 2",
        "half (x=8)",
        "Value returned is $4 = 4",
        "$5 = 4",
        "=> 0x",
        " = 5\n",
        "AT_ENTRY",
        "instructions interpreted: ",
        "exited with code 03",
    ):
        assert expected in output, output


def test_steps() -> None:
    with guest(program(PLAIN)) as found:
        output = gdb(
            found.where, "break main", "continue", "next", "print sum", "step", "print $_exitcode", "stepi", "nexti",
            "info program", "kill",
        )  # fmt: skip
        assert found.end() == ("", 137)
    assert "Breakpoint 1, main ()" in output
    assert "$1 = 8" in output
    assert "half (x=8)" in output
    assert "killed" in output


def test_watchpoints() -> None:
    with guest(program(PLAIN)) as found:
        output = gdb(
            found.where, "break main", "continue", "watch counter", "continue", "continue", "delete", "rwatch text[1]",
            "continue", "delete", "continue",
        )  # fmt: skip
        assert found.end()[1] == 3
    assert "Hardware watchpoint 2: counter" in output
    assert "Old value = 0\nNew value = 1" in output
    assert "Old value = 1\nNew value = 2" in output
    assert "Value = 101 'e'" in output


def test_threads() -> None:
    with guest(program(THREADS), "threads") as found:
        output = gdb(
            found.where, "break work", "continue", "info threads", "thread 1", "backtrace", "thread 2",
            "set scheduler-locking on", "next", "next", "print spins", "set scheduler-locking off",
            "delete", "continue",
        )  # fmt: skip
        assert found.end() == ("caught 0\n", 0)
    assert "hit Breakpoint 1, work (p=0x0)" in output
    assert "* 2    Thread 3 (program, in user mode)" in output
    assert "in main (count=2" in output
    assert "$1 = 2\n" in output


@pytest.mark.parametrize(("how", "caught"), [("continue", 10), ("signal 0", 0)])
def test_a_signal_is_gdb_s_to_decide_on(how: str, caught: int) -> None:
    with guest(program(THREADS), "signal") as found:
        output = gdb(found.where, "continue", "print caught", how)
        assert found.end() == (f"caught {caught}\n", 0)
    assert "Program received signal SIGUSR1" in output
    assert "$1 = 0" in output


def test_a_signal_that_gdb_does_not_want_to_see() -> None:
    with guest(program(THREADS), "signal") as found:
        output = gdb(found.where, "handle SIGUSR1 nostop noprint pass", "continue")
        assert found.end() == ("caught 10\n", 0)
    assert "received" not in output


def test_a_fault_stops_and_then_ends_the_guest() -> None:
    with guest(program(THREADS), "fault") as found:
        output = gdb(found.where, "continue", "print $_siginfo._sifields._sigfault.si_addr", "backtrace", "continue")
        assert found.end() == ("", 139)
    assert "Program received signal SIGSEGV" in output
    assert "0x10" in output
    assert "in main (count=2" in output
    assert "Program terminated with signal SIGSEGV" in output


@pytest.mark.parametrize("mode", ["loop", "pause"])
def test_interrupting_a_guest_and_a_signal_from_gdb(mode: str) -> None:
    with guest(program(THREADS), mode) as found:
        output = gdb(
            found.where, "handle SIGUSR1 nostop noprint pass", "continue", "backtrace", "signal SIGUSR1",
            interrupt_after=3,
        )  # fmt: skip
        assert found.end() == ("caught 10\n", 0)
    assert "Program received signal SIGINT" in output
    assert "in main (count=2" in output


def test_other_processes_run_over_breakpoints() -> None:
    with guest(program(THREADS), "fork") as found:
        output = gdb(found.where, "break work", "continue", "backtrace", "continue")
        assert found.end() == ("caught 0\n", 0)
    assert output.count("hit Breakpoint 1") + output.count("Breakpoint 1, work") == 1


def test_another_program() -> None:
    with guest(program(THREADS), "exec") as found:
        output = gdb(found.where, "catch exec", "continue", "delete", "break on", "continue", "continue", "continue")
        assert found.end() == ("caught 10\n", 0)
    assert "is executing new program" in output
    assert "Breakpoint 2, on (number=10)" in output


def test_shared_libraries() -> None:
    if not SYSROOT.is_dir():
        pytest.skip(f"no {SYSROOT} (Debian: libc6-riscv64-cross)")
    with guest(program(PLAIN, dynamic=True)) as found:
        output = gdb(
            found.where, "break main", "continue", "info sharedlibrary", "break printf", "continue", "backtrace",
            "delete", "continue",
        )  # fmt: skip
        assert found.end()[1] == 3
    assert "target:/lib/libc.so.6" in output
    assert "in main () at " in output


def test_leaving_and_coming_back() -> None:
    with guest(program(THREADS), "loop") as found:
        first = gdb(found.where, "handle SIGUSR1 nostop noprint pass", "break main", "continue", "detach")
        second = gdb(
            found.where, "handle SIGUSR1 nostop noprint pass", "print spins > 0", "backtrace", "signal SIGUSR1"
        )
        assert found.end() == ("caught 10\n", 0)
    assert "Breakpoint 1, main" in first
    assert "detached" in first
    assert "$1 = 1" in second
    assert "in main (count=2" in second


# Without GDB


def test_a_socket_in_the_file_system_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with guest(program(PLAIN), where=str(path)) as found:
        assert path.stat().st_mode & 0o777 == 0o700
        client = Client(found.where)
        assert client.ask(b"?") == b"T05thread:2;"
        assert client.ask(b"c") == b"W03"
        assert client.receive() is None
        client.close()
        assert found.end() == ("8 before 4\n", 3)


def test_a_client_that_hangs_up_leaves_the_guest_to_itself() -> None:
    with guest(program(PLAIN)) as found:
        client = Client(found.where)
        pc = int.from_bytes(bytes.fromhex((client.ask(b"p20") or b"").decode()), "little")
        assert client.ask(b"Z0,%x,2" % pc) == b"OK"
        client.close()
        assert found.end() == ("8 before 4\n", 3)


def test_a_client_that_does_not_speak_the_protocol_is_left() -> None:
    with guest(program(PLAIN)) as found:
        client = Client(found.where)
        client.send(b"GET / HTTP/1.1\r\n\r\n$" + bytes(100_000))
        assert client.receive() is None
        client.close()
        assert found.end() == ("8 before 4\n", 3)


def test_damage_is_repaired() -> None:
    with guest(program(PLAIN)) as found:
        client = Client(found.where)
        client.send(b"$?#00")
        assert client.receive() is Control.REFUSED
        client.send(b"$?#3f")
        assert client.receive() is Control.ACKNOWLEDGED
        first = client.receive()
        client.send(b"-")
        assert client.receive() == first == b"T05thread:2;"
        assert client.ask(b"QStartNoAckMode") == b"OK"
        client.send(b"$?#3f")
        assert client.receive() == first
        client.close()
        assert found.end()[1] == 3


def test_a_second_client_is_turned_away() -> None:
    with guest(program(PLAIN)) as found:
        client, other = Client(found.where), Client(found.where)
        assert client.ask(b"qAttached") == b"0"
        assert other.receive() is None
        other.close()
        assert client.ask(b"c") == b"W03"
        client.close()
        assert found.end()[1] == 3


def test_the_guest_can_be_ended_before_gdb_comes() -> None:
    with guest(program(PLAIN)) as found:
        time.sleep(1)  # before it is a guest there is only virtus to be ended
        found.process.terminate()
        assert found.end() == ("", 143)
