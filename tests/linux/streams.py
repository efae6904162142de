"""A fake machine whose guest talks through descriptors: pipes, sockets, terminals and what polls them."""

import os
import struct
import time
from typing import Any

from tests.linux.fake import BASE, FakeMachine, context_of
from virtus.personalities.linux.files import File
from virtus.personalities.linux.task import Task

BUFFER = BASE + 0x4000
OUT = BASE + 0x100


class Guest(FakeMachine):
    """A machine that talks of descriptors and bytes."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(
            "pipes", "socket_calls", "poll_calls", "events", "file_calls", "stdio", "terminals", "path_calls", **spec
        )

    def ok(self, name: str, *arguments: int, task: Task | None = None) -> int:
        """A call that succeeds at once; its result."""
        result = self.call(name, *arguments, task=task)
        assert result is not None, f"{name} waits"
        assert result >= 0, f"{name}: {os.strerror(-result)}"
        return result

    def asleep(self, task: Task | None = None) -> bool:
        """Whether the task waits in a call."""
        return not context_of(task or self.task).running

    def events(self, task: Task | None = None, *, within: float = 0.2) -> int | None:
        """Let host events through until the task is back; its result."""
        end = time.monotonic() + within
        while self.asleep(task) and time.monotonic() < end:
            if self.kernel.scheduler.epoll.poll(end - time.monotonic()):
                self.event()
        return self.result(task)

    def fds(self, name: str, *arguments: int) -> tuple[int, int]:
        """A call that stores two descriptors at OUT."""
        self.ok(name, *arguments)
        first, second = struct.unpack("<ii", self.task.read(OUT, 8))
        return first, second

    def pipe(self, flags: int = 0) -> tuple[int, int]:
        return self.fds("pipe2", OUT, flags)

    def pair(self, kind: int = 1, family: int = 1) -> tuple[int, int]:
        return self.fds("socketpair", family, kind, 0, OUT)

    def write(self, fd: int, data: bytes, *, task: Task | None = None) -> int | None:
        (task or self.task).write(BUFFER, data)
        return self.call("write", fd, BUFFER, len(data), task=task)

    def read(self, fd: int, count: int = 4096) -> bytes:
        size = self.ok("read", fd, BUFFER, count)
        return self.task.read(BUFFER, size)

    def file(self, fd: int) -> File:
        return self.task.descriptors.get(fd)

    def close(self) -> None:
        for task in list(self.kernel.tasks.values()):
            self.kernel.cancel_call(task)
            if task.descriptors.files:
                task.descriptors.close_all(task)
        super().close()
