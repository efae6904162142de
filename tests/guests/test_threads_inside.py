"""Threads and processes that wait for each other, inside each technique."""

import pytest

from tests import guest_runs

COMPUTE = """
import threading, queue, concurrent.futures as futures
lock, count, q, out = threading.Lock(), 0, queue.Queue(3), []
def add(k):
    global count
    for _ in range(500):
        with lock:
            count += 1
    return k
with futures.ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(add, range(16))), count)
def produce():
    for i in range(200):
        q.put(i)
    q.put(None)
def consume():
    while (item := q.get()) is not None:
        out.append(item)
threads = [threading.Thread(target=each) for each in (produce, consume)]
[t.start() for t in threads], [t.join() for t in threads]
print(out == list(range(200)), threading.Event().wait(0.01))
"""

SHARED = """
import ctypes, mmap, os, struct
libc = ctypes.CDLL(None, use_errno=True)
memory = mmap.mmap(-1, 4096)
semaphore = ctypes.c_char.from_buffer(memory, 64)
assert libc.sem_init(ctypes.byref(semaphore), 1, 0) == 0
for number in range(4):
    if not os.fork():
        for _ in range(50):
            libc.sem_post(ctypes.byref(semaphore))
        os._exit(0)
for _ in range(200):
    assert libc.sem_wait(ctypes.byref(semaphore)) == 0
for _ in range(4):
    os.wait()
print("shared")
made = libc.semget(0, 1, 0o600)
for _ in range(3):
    if not os.fork():
        libc.semop(made, struct.pack("<Hhh", 0, 1, 0), 1)
        os._exit(0)
assert libc.semop(made, struct.pack("<Hhh", 0, -3, 0), 1) == 0
libc.semctl(made, 0, 0)
print("system v")
"""

PREALLOCATE = """
import os
fd = os.memfd_create("large")
try:
    os.posix_fallocate(fd, 0, 1 << 60)
except OSError as error:
    print(error.errno)
"""


@pytest.mark.slow
@pytest.mark.parametrize("technique", guest_runs.TECHNIQUES)
@pytest.mark.parametrize(
    ("program", "printed"),
    [(COMPUTE, b"120 8000\nTrue False\n"), (SHARED, b"shared\nsystem v\n")],
    ids=["threads", "shared memory"],
)
def test_waiting_for_each_other(technique: str, program: str, printed: bytes) -> None:
    guest_runs.need(technique)
    finished = guest_runs.guest(technique, "python3", "-c", program)
    assert (finished.stdout, finished.stderr, finished.returncode) == (printed, b"", 0)


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["uml-skas", "uml-tt"])
def test_all_memory_cannot_be_taken_with_one_call(technique: str) -> None:
    """The kernel makes the call itself: it must not stand still in it."""
    guest_runs.need(technique)
    finished = guest_runs.guest(technique, "python3", "-c", PREALLOCATE)
    assert (finished.stdout, finished.stderr) == (b"28\n", b"")
