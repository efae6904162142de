"""The seccomp filter decides as the table says, for every call and whatever arguments; the supervisor answers so."""

import errno
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from virtus.exits import Exit, Reason
from virtus.host import seccomp
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.machine.meter import Meter
from virtus.personalities.linux import supervision
from virtus.personalities.linux.supervised import LINUX_REBOOT_MAGIC1, Supervisor
from virtus.techniques.seccomp import build_filter

X86_64, I386 = 0xC000003E, 0x40000003  # AUDIT_ARCH_*, include/uapi/linux/audit.h
PROGRAM = list(struct.iter_unpack("<HBBI", build_filter()))
ALLOW, NOTIFY, ERRNO = seccomp.RET_ALLOW, seccomp.RET_USER_NOTIF, seccomp.RET_ERRNO
CLONE_NEWUSER = 0x10000000
SECRET = 0x1234567890ABCDEF


def verdict(number: int, arguments: tuple[int, ...] = (), arch: int = X86_64) -> int:
    """What the host's kernel would say: the instructions of classic BPF that a filter is made of."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*arguments, *[0] * 6)[:6])
    at, accumulator = 0, 0
    while True:
        code, true, false, constant = PROGRAM[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            accumulator = struct.unpack_from("<I", data, constant)[0]
        elif code == 0x06:  # BPF_RET | BPF_K
            return int(constant)
        else:
            holds = {0x15: accumulator == constant, 0x35: accumulator >= constant, 0x45: accumulator & constant}[code]
            at += true if holds else false


WORDS = st.integers(0, 2**64 - 1)


@given(st.sampled_from(sorted(NUMBERS)), st.tuples(WORDS, WORDS, WORDS, WORDS, WORDS, WORDS))
def test_every_call_gets_its_disposition(name: str, arguments: tuple[int, ...]) -> None:
    said = verdict(NUMBERS[name], arguments)
    if name == "clone" and arguments[0] & supervision.NAMESPACE_FLAGS:
        assert said == ERRNO | errno.EPERM
    elif name == "socket" and arguments[0] & 0xFFFFFFFF not in supervision.SOCKET_FAMILIES:
        assert said == ERRNO | errno.EAFNOSUPPORT
    elif name in supervision.NATIVE:
        assert said == ALLOW
    else:
        assert said == NOTIFY


@given(st.integers(0, 2**32 - 1))
@example(0x40000000 + 39)
@example(0xFFFFFFFF)
def test_numbers_that_stand_nowhere_are_never_allowed(number: int) -> None:
    if number not in NUMBERS.values():
        assert verdict(number) in (NOTIFY, ERRNO | errno.ENOSYS)
    assert verdict(number, arch=I386) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("clone", (17,), NOTIFY),
        ("clone", (CLONE_NEWUSER | 17,), ERRNO | errno.EPERM),
        ("clone", (CLONE_NEWUSER << 32,), NOTIFY),  # the kernel looks at the low half as well
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, supervision.TIOCSTI), ERRNO | errno.EPERM),
        ("ioctl", (0, supervision.TIOCSTI | 1 << 32), ERRNO | errno.EPERM),
        ("socket", (1,), ALLOW),
        ("socket", (17,), ALLOW),
        ("socket", (40,), ERRNO | errno.EAFNOSUPPORT),
        ("socket", (38,), ERRNO | errno.EAFNOSUPPORT),
    ],
)
def test_arguments_that_decide(name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert verdict(NUMBERS[name], arguments) == expected


class Notified:
    """A notified call: what the supervisor answers it."""

    def __init__(self, *arguments: int) -> None:
        self.arguments = [*arguments, *[0] * 6]
        self.said: Any = None

    def answer(self, value: int = 0, error: int = 0) -> None:
        self.said = error or value

    def let_through(self) -> None:
        self.said = "through"


def ask(supervisor: Supervisor, number: int, *arguments: int) -> Any:
    exit = Exit()
    exit.reason, exit.number, exit.context = Reason.SYSCALL, number, Notified(*arguments)
    supervisor.handle(exit)
    return exit.context.said


@pytest.fixture
def meter() -> Meter:
    return Meter()


def supervisor(meter: Meter, limit: int = 10) -> Supervisor:
    return Supervisor(meter, limit, -1, SECRET)


def test_refused_and_unknown_calls_leave_a_line_in_the_meter(meter: Meter) -> None:
    box = supervisor(meter)
    assert ask(box, NUMBERS["ptrace"]) == errno.EPERM
    assert ask(box, NUMBERS["clone3"]) == errno.ENOSYS
    assert ask(box, 5000) == errno.ENOSYS
    assert sorted(meter.notes) == [
        "clone3 refused: ENOSYS",
        "ptrace refused: EPERM",
        "unknown system call 5000: ENOSYS",
    ]


@pytest.mark.parametrize(
    ("arguments", "answer", "ends"),
    [
        ((0, 0, 0x4321FEDC), errno.EINVAL, False),
        ((LINUX_REBOOT_MAGIC1, 672274793, 7), errno.EINVAL, False),
        ((LINUX_REBOOT_MAGIC1, 672274793, 0), 0, False),
        ((LINUX_REBOOT_MAGIC1, 672274793, 0x4321FEDC), None, True),
        ((SECRET,), None, True),
    ],
)
def test_reboot(meter: Meter, arguments: tuple[int, ...], answer: Any, ends: bool) -> None:
    box = supervisor(meter)
    assert ask(box, NUMBERS["reboot"], *arguments) == answer
    assert box.running is not ends
    assert box.powered_off is (ends and arguments != (SECRET,))


def test_forks_are_counted_only_when_the_limit_may_be_near(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    box = supervisor(meter, limit=10)
    tasks = 4
    monkeypatch.setattr(box, "_count", lambda: tasks)
    assert [ask(box, NUMBERS["fork"]) for _ in range(14)] == ["through"] * 14  # 8, then 6 as only 4 live
    tasks = 10
    assert ask(box, NUMBERS["clone"]) == errno.EAGAIN
    assert ask(box, NUMBERS["vfork"]) == errno.EAGAIN
    assert list(meter.notes.values()) == [2]
    tasks = 9
    assert ask(box, NUMBERS["fork"]) == "through"
