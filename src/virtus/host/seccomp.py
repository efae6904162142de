"""seccomp(2): a classic-BPF program that decides on system calls, and user notification of a supervisor.

Constants and structures are those of include/uapi/linux/seccomp.h, filter.h, bpf_common.h and audit.h.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from typing import Final

from virtus.host.machine_code import MachineCode

RET_ERRNO: Final = 0x00050000
RET_USER_NOTIF: Final = 0x7FC00000
RET_ALLOW: Final = 0x7FFF0000
SET_MODE_FILTER: Final = 1
FLAG_NEW_LISTENER: Final = 1 << 3
FLAG_WAIT_KILLABLE_RECV: Final = 1 << 5  # Linux 5.19
NOTIF_RECV: Final = 0xC0502100
NOTIF_SEND: Final = 0xC0182101
NOTIF_SET_FLAGS: Final = 0x40082104  # Linux 6.6
SYNC_WAKE_UP: Final = 1
USER_NOTIF_FLAG_CONTINUE: Final = 1
AUDIT_ARCH_X86_64: Final = 0xC000003E
X32_BIT: Final = 0x40000000
PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP: Final = 317  # syscall_64.tbl

NR_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K ..., BPF_RET|K

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Filter:
    """A program in the making: checks in order, each ends with a verdict or falls through to the next."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = [
            (_LOAD, 0, 0, ARCH_AT),
            (_JEQ, 1, 0, AUDIT_ARCH_X86_64),
            (_RETURN, 0, 0, RET_ERRNO | errno.ENOSYS),  # i386: another table of numbers
            (_LOAD, 0, 0, NR_AT),
            (_JGE, 0, 1, X32_BIT),
            (_RETURN, 0, 0, RET_ERRNO | errno.ENOSYS),
        ]

    def verdict(self, number: int, verdict: int) -> None:
        """This call gets this verdict."""
        self._code += [(_JEQ, 0, 1, number), (_RETURN, 0, 0, verdict)]

    def verdict_if_bits(self, number: int, argument: int, bits: int, verdict: int) -> None:
        """This call gets this verdict when any of `bits` is set in the low half of an argument."""
        self._code += [
            (_JEQ, 0, 4, number),
            (_LOAD, 0, 0, ARGUMENTS_AT + 8 * argument),
            (_JSET, 0, 1, bits),
            (_RETURN, 0, 0, verdict),
            (_LOAD, 0, 0, NR_AT),
        ]

    def verdict_if_equal(self, number: int, argument: int, value: int, verdict: int) -> None:
        """This call gets this verdict when the low half of an argument is `value`."""
        self._code += [
            (_JEQ, 0, 4, number),
            (_LOAD, 0, 0, ARGUMENTS_AT + 8 * argument),
            (_JEQ, 0, 1, value),
            (_RETURN, 0, 0, verdict),
            (_LOAD, 0, 0, NR_AT),
        ]

    def verdict_unless_in(self, number: int, argument: int, values: Sequence[int], verdict: int) -> None:
        """This call gets this verdict unless the low half of an argument is one of `values`."""
        checks = [(_JEQ, len(values) - at, 0, value) for at, value in enumerate(values)]
        self._code += [
            (_JEQ, 0, len(values) + 3, number),
            (_LOAD, 0, 0, ARGUMENTS_AT + 8 * argument),
            *checks,
            (_RETURN, 0, 0, verdict),
            (_LOAD, 0, 0, NR_AT),
        ]

    def allow_ranges(self, numbers: set[int]) -> None:
        """Allow these calls, few comparisons for runs of neighbours."""
        for first, last in _runs(sorted(numbers)):
            if first == last:
                self.verdict(first, RET_ALLOW)
            else:
                self._code += [(_JGE, 0, 2, first), (_JGE, 1, 0, last + 1), (_RETURN, 0, 0, RET_ALLOW)]

    def program(self, otherwise: int) -> bytes:
        """The finished program; what nothing decided gets `otherwise`."""
        return b"".join(struct.pack("<HBBI", *row) for row in [*self._code, (_RETURN, 0, 0, otherwise)])


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def install(program: bytes) -> int:
    """Put the filter on this process and all it will start; the notification descriptor.

    Sets no_new_privs. Raises OSError; EBUSY when a filter with notification is there already.
    """
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<H6xQ", len(program) // 8, ctypes.addressof(buffer))
    for flags in (FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV, FLAG_NEW_LISTENER):
        fd: int = _libc.syscall(_SECCOMP, SET_MODE_FILTER, flags, header)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number != errno.EINVAL:
            break
    raise OSError(number, f"installing the seccomp filter: {os.strerror(number)}")


# Answer one notification and wait for the next in one crossing; in Python the two calls cost more than in the kernel.
# The block's words: descriptor, response that is due (0: none), notification. The next response follows the
# notification, and is made ready with its cookie and zeroes. The result: the call's number, or a negative errno.
#
#            push rbx;  mov rbx, rdi
#   send:    mov rdx, [rbx+8];  test rdx, rdx;  jz receive
#            mov rdi, [rbx];  mov esi, NOTIF_SEND;  mov eax, 16 (ioctl);  syscall
#            cmp rax, -EINTR;  je send                                a signal came while another thread was notifying
#            mov qword [rbx+8], 0
#   receive: mov rdi, [rbx+16];  xor eax, eax;  mov ecx, 13;  rep stosq          the kernel wants it zeroed
#            mov rdi, [rbx];  mov esi, NOTIF_RECV;  mov rdx, [rbx+16];  mov eax, 16;  syscall
#            test rax, rax;  js out
#            mov rdx, [rbx+16];  mov rax, [rdx];  mov [rdx+80], rax;  mov eax, [rdx+16]
#   out:     pop rbx;  ret
EXCHANGE_CODE: Final = bytes.fromhex(
    "53 4889fb 488b5308 4885d2 741d 488b3b be012118c0 b810000000 0f05 4883f8fc 74e2 48c7430800000000"
    "488b7b10 31c0 b90d000000 f348ab 488b3b be002150c0 488b5310 b810000000 0f05 4885c0 780e"
    "488b5310 488b02 48894250 8b4210 5b c3"
)


class Listener:
    """The supervisor's end: receives one notification at a time into buffers that are used again and again.

    An answer goes out together with the wait for the next notification.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._code = MachineCode(EXCHANGE_CODE)
        self._exchange = self._code.function(ctypes.c_void_p, waits=True)
        self._area = (ctypes.c_uint64 * 16)()  # the block, the notification (80 bytes), the response (24 bytes)
        self._address = ctypes.addressof(self._area)
        self._response = self._address + 104
        whole = memoryview(self._area).cast("B")
        self._block = whole[:24].cast("Q")
        words, response = whole[24:104], whole[104:128]
        self._ids = words[:8].cast("Q")
        self._pid = words[8:16].cast("I")
        self.arguments = words[32:80].cast("Q")
        self._value = response[8:16].cast("q")
        self._error = response[16:20].cast("i")
        self._flags = response[20:24].cast("I")
        self._block[0], self._block[2] = fd, self._address + 24
        try:
            fcntl.ioctl(fd, NOTIF_SET_FLAGS, SYNC_WAKE_UP)
        except OSError:
            pass  # before Linux 6.6: slower wake-ups, the same answers

    def receive(self) -> int:
        """Send the answer that is due and wait for the next notification: the number of the system call, unsigned.

        Negative when the wait was interrupted. An answer to a caller that was killed meanwhile is dropped.
        """
        result = self._exchange(self._address)
        if result < 0 and -result not in (errno.ENOENT, errno.EINTR):
            raise OSError(-result, os.strerror(-result))
        return result

    @property
    def ident(self) -> int:
        """The notification's cookie."""
        return self._ids[0]

    @property
    def pid(self) -> int:
        """The calling thread, as the supervisor's PID namespace numbers it."""
        return self._pid[0]

    def answer(self, value: int = 0, error: int = 0) -> None:
        """Give the call a result, or an errno. Once for each notification."""
        self._value[0], self._error[0] = value, -error
        self._block[1] = self._response

    def let_through(self) -> None:
        """Have the host's kernel execute the call after all. Never a decision on memory: that may change meanwhile."""
        self._flags[0] = USER_NOTIF_FLAG_CONTINUE
        self._block[1] = self._response

    def _send_now(self) -> None:
        response = bytes(memoryview(self._area).cast("B")[104:128])
        while True:
            try:
                fcntl.ioctl(self.fd, NOTIF_SEND, response)
                return
            except InterruptedError:
                continue
            except FileNotFoundError:
                return  # the caller was killed meanwhile

    def close(self) -> None:
        """Send the answer that is due; from here on every notified call of the guest gives ENOSYS."""
        if self.fd >= 0:
            if self._block[1]:
                self._send_now()
            os.close(self.fd)
            self.fd = -1


def notify(number: int, *arguments: int) -> None:
    """Make a call that the filter notifies; its result does not matter."""
    _libc.syscall(number, *(ctypes.c_ulong(argument) for argument in arguments))
