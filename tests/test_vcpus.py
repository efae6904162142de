"""The vCPUs of the user-mode kernel, alike for both: real stub processes, a few bytes of guest code."""

import errno
import os
import select
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from virtus.exits import Reason
from virtus.isa.x86 import registers as r
from virtus.isa.x86.layout import STUB_START
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus.ptrace import PtraceVcpu
from virtus.vcpus.traced import TracedVcpu

CODE_AT = 0x10000
GETPID_LOOP = bytes.fromhex("b827000000 0f05 ebf7")  # mov eax, 39; syscall; jmp
SPIN = bytes.fromhex("ebfe")  # jmp to itself
LOAD_NULL = bytes.fromhex("488b042500000000")  # mov rax, [0]
INT_80 = bytes.fromhex("b814000000 cd80 ebf7")  # mov eax, 20; int 0x80; jmp
SSE_ONE = bytes.fromhex("660f6ec0 0f05")  # movd xmm0, eax; syscall
PRIVATE_FIXED_ANONYMOUS = 0x32
RWX = 7


@pytest.fixture(params=[PtraceVcpu, TracedVcpu], ids=["skas", "tt"])
def vcpu(request: pytest.FixtureRequest) -> Iterator[Any]:
    affinity = os.sched_getaffinity(0)
    try:
        made = request.param()
    except OSError as error:
        pytest.skip(f"this host forbids tracing: {error}")
    yield made
    made.close()
    os.sched_setaffinity(0, affinity)


@pytest.fixture
def load(vcpu: Any) -> Callable[[bytes], Any]:
    def make(code: bytes) -> Any:
        context = vcpu.boot()
        assert context.inject(NUMBERS["mmap"], CODE_AT, 4096, RWX, PRIVATE_FIXED_ANONYMOUS, -1, 0) == CODE_AT
        context.write(CODE_AT, code)
        context.regs[r.RIP] = CODE_AT
        return context

    return make


def host_maps(ident: int) -> list[str]:
    with open(f"/proc/{ident}/maps") as stream:
        return [line for line in stream.read().splitlines() if "[vsyscall]" not in line]


def test_a_fresh_address_space_holds_one_page_of_the_stub(vcpu: Any) -> None:
    (only,) = host_maps(vcpu.boot().ident)
    assert only.startswith(f"{STUB_START:x}-") and " r-xp " in only


def test_a_system_call_comes_out_and_the_result_goes_in(vcpu: Any, load: Callable[[bytes], Any]) -> None:
    context = load(GETPID_LOOP)
    for result in (7, 8):
        context.resume()
        exit = vcpu.run()
        assert (exit.reason, exit.number, exit.context) == (Reason.SYSCALL, NUMBERS["getpid"], context)
        assert context.regs[r.RCX] == context.regs[r.RIP]
        context.regs[r.RAX] = result


def test_the_32_bit_entry_does_not_look_like_a_system_call_instruction(vcpu: Any, load: Callable[[bytes], Any]) -> None:
    context = load(INT_80)
    context.resume()
    exit = vcpu.run()
    assert exit.reason is Reason.SYSCALL and context.regs[r.RCX] != context.regs[r.RIP]


def test_injection_preserves_registers(vcpu: Any, load: Callable[[bytes], Any]) -> None:
    context = load(GETPID_LOOP)
    context.resume()
    vcpu.run()
    before = context.regs.tobytes()
    assert context.inject(NUMBERS["getpid"]) == context.ident
    assert context.inject(NUMBERS["munmap"], 1, 4096) == -errno.EINVAL
    assert context.regs.tobytes() == before


def test_a_signal_met_while_injecting_comes_out_when_the_guest_runs_again(
    vcpu: Any, load: Callable[[bytes], Any]
) -> None:
    stopped, other = load(GETPID_LOOP), load(GETPID_LOOP)
    stopped.resume()
    assert vcpu.run().reason is Reason.SYSCALL
    os.kill(stopped.ident, signal.SIGVTALRM)
    assert stopped.inject(NUMBERS["getuid"]) == os.getuid()
    other.resume()
    exit = vcpu.run()
    assert (exit.context, exit.reason) == (other, Reason.SYSCALL)
    stopped.resume()
    exit = vcpu.run()
    assert (exit.context, exit.reason, exit.number) == (stopped, Reason.SIGNAL, signal.SIGVTALRM)
    stopped.resume()
    assert vcpu.run().reason is Reason.SYSCALL


def test_fork_copies_memory_and_a_thread_shares_it(vcpu: Any, load: Callable[[bytes], Any]) -> None:
    context = load(GETPID_LOOP)
    copy, thread = context.fork(share_memory=False), context.fork(share_memory=True)
    context.write(CODE_AT + 100, b"new")
    assert thread.read(CODE_AT + 100, 3) == b"new"
    assert copy.read(CODE_AT + 100, 3) == bytes(3)
    copy.resume()
    exit = vcpu.run()
    assert exit.context is copy and exit.number == NUMBERS["getpid"]


def test_a_fault_comes_out_with_its_address(vcpu: Any, load: Callable[[bytes], Any]) -> None:
    context = load(LOAD_NULL)
    context.resume()
    exit = vcpu.run()
    assert (exit.reason, exit.number) == (Reason.SIGNAL, 11)
    assert int.from_bytes(context.fault()[16:24], "little") == 0


def test_memory_errors_are_efault(vcpu: Any) -> None:
    context = vcpu.boot()
    with pytest.raises(OSError) as caught:
        context.read(0x5000, 4)
    assert caught.value.errno == errno.EFAULT
    with pytest.raises(OSError) as caught:
        context.write(0x5000, b"x")
    assert caught.value.errno == errno.EFAULT
    assert context.read_partial(0x5000, 10) == b""


def test_a_running_context_can_be_kicked_and_killed(vcpu: Any, load: Callable[[bytes], Any]) -> None:
    context = load(SPIN)
    context.resume()
    context.kick()
    exit = vcpu.run()
    assert (exit.reason, exit.number, exit.context) == (Reason.SIGNAL, 0, context)
    context.resume()
    context.kill()
    exit = vcpu.run()
    assert (exit.reason, exit.context) == (Reason.ENDED, context)
    assert not os.path.exists(f"/proc/{context.ident}")


def test_vector_state_round_trips_and_a_bad_one_is_refused(vcpu: Any, load: Callable[[bytes], Any]) -> None:
    context = load(SSE_ONE)
    context.regs[r.RAX] = 0x1234
    context.resume()
    vcpu.run()
    state = context.extended_state()
    assert int.from_bytes(state[160:164], "little") == 0x1234  # XMM0 (Intel SDM volume 1, 13.4.1)
    context.set_extended_state(state)
    bad = bytearray(state)
    bad[512:520] = b"\xff" * 8  # XSTATE_BV with undefined components
    with pytest.raises(OSError):
        context.set_extended_state(bytes(bad))


def test_host_readiness_comes_out_while_a_guest_runs_and_while_none_does(
    vcpu: Any, load: Callable[[bytes], Any]
) -> None:
    epoll = select.epoll()
    out, in_ = os.pipe()
    epoll.register(out, select.EPOLLIN)
    vcpu.watch(epoll)
    os.write(in_, b"1")
    assert vcpu.run().reason is Reason.EVENT
    os.read(out, 1)
    context = load(SPIN)
    context.resume()
    os.write(in_, b"2")
    assert vcpu.run().reason is Reason.EVENT
    for fd in (out, in_):
        os.close(fd)
    epoll.close()
