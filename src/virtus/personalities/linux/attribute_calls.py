"""System calls on extended attributes (xattr(7)). A guest's root cannot set those of the host's root: `trusted`."""

import errno
from collections.abc import Callable
from typing import Any, Final

from virtus.host import path_calls as host
from virtus.personalities.linux import known
from virtus.personalities.linux.metadata_calls import real_file
from virtus.personalities.linux.paths import AT_FDCWD, at, descriptor_of
from virtus.personalities.linux.table import Int, Word, call
from virtus.personalities.linux.task import Task

XATTR_NAME_MAX: Final = 255  # include/uapi/linux/limits.h
XATTR_SIZE_MAX: Final = 65536

_value = host.Buffer(XATTR_SIZE_MAX)


def _on_attributes(
    task: Task, path: int, by_path: Callable[[bytes], int], by_descriptor: Callable[[int], int], *, follow: bool
) -> int:
    """A call on a path that takes no directory: inside the host's /proc it is made on the descriptor meant."""
    name = task.read_string(path)

    def act(start: int, text: bytes) -> int:
        held = descriptor_of((start, text))
        return by_descriptor(held) if held >= 0 else by_path(text)

    result: int = at(task, AT_FDCWD, name, act, follow=follow, inside=lambda node: -errno.EOPNOTSUPP)
    return result


def _attribute_name(task: Task, address: int) -> bytes:
    try:
        name = task.read_string(address, XATTR_NAME_MAX + 1)
    except OSError as error:
        raise OSError(errno.ERANGE if error.errno == errno.ENAMETOOLONG else error.errno, "") from None
    if not name:
        raise OSError(errno.ERANGE, "")
    return name


def _give(task: Task, result: int, buffer: int, size: int) -> int:
    if result > 0 and size:
        if result > size:
            return -errno.ERANGE
        task.write(buffer, _value.view[:result])
    return result


def _get(task: Task, path: int, name: int, buffer: int, size: int, call: Any, *, follow: bool) -> int:
    key = _attribute_name(task, name)
    result = _on_attributes(
        task,
        path,
        lambda text: call(text, key, _value.address, _value.size),
        lambda held: host.fgetxattr(held, key, _value.address, _value.size),
        follow=follow,
    )
    return _give(task, result, buffer, size)


@call("getxattr")
def getxattr(task: Task, path: Word, name: Word, buffer: Word, size: Word) -> int:
    """getxattr(2)."""
    return _get(task, path, name, buffer, size, host.getxattr, follow=True)


@call("lgetxattr")
def lgetxattr(task: Task, path: Word, name: Word, buffer: Word, size: Word) -> int:
    """lgetxattr(2)."""
    return _get(task, path, name, buffer, size, host.lgetxattr, follow=False)


@call("fgetxattr")
def fgetxattr(task: Task, fd: Int, name: Word, buffer: Word, size: Word) -> int:
    """fgetxattr(2)."""
    key = _attribute_name(task, name)
    result = host.fgetxattr(real_file(task, fd).host, key, _value.address, _value.size)
    return _give(task, result, buffer, size)


def _list(task: Task, path: int, buffer: int, size: int, call: Any, *, follow: bool) -> int:
    result = _on_attributes(
        task,
        path,
        lambda text: call(text, _value.address, _value.size),
        lambda held: host.flistxattr(held, _value.address, _value.size),
        follow=follow,
    )
    if result == -errno.EOPNOTSUPP:
        return 0
    return _give(task, result, buffer, size)


@call("listxattr")
def listxattr(task: Task, path: Word, buffer: Word, size: Word) -> int:
    """listxattr(2)."""
    return _list(task, path, buffer, size, host.listxattr, follow=True)


@call("llistxattr")
def llistxattr(task: Task, path: Word, buffer: Word, size: Word) -> int:
    """llistxattr(2)."""
    return _list(task, path, buffer, size, host.llistxattr, follow=False)


@call("flistxattr")
def flistxattr(task: Task, fd: Int, buffer: Word, size: Word) -> int:
    """flistxattr(2)."""
    return _give(task, host.flistxattr(real_file(task, fd).host, _value.address, _value.size), buffer, size)


def _attribute_value(task: Task, address: int, size: int) -> bytes:
    if size > XATTR_SIZE_MAX:
        raise OSError(errno.E2BIG, "")
    return task.read(address, size) if size else b""


def _set(task: Task, path: int, name: int, value: int, size: int, flags: int, call: Any, *, follow: bool) -> int:
    key, data = _attribute_name(task, name), _attribute_value(task, value, size)
    known.changed()  # access control lists are attributes
    return _on_attributes(
        task,
        path,
        lambda text: call(text, key, data, size, flags),
        lambda held: host.fsetxattr(held, key, data, size, flags),
        follow=follow,
    )


@call("setxattr")
def setxattr(task: Task, path: Word, name: Word, value: Word, size: Word, flags: Int) -> int:
    """setxattr(2)."""
    return _set(task, path, name, value, size, flags, host.setxattr, follow=True)


@call("lsetxattr")
def lsetxattr(task: Task, path: Word, name: Word, value: Word, size: Word, flags: Int) -> int:
    """lsetxattr(2)."""
    return _set(task, path, name, value, size, flags, host.lsetxattr, follow=False)


@call("fsetxattr")
def fsetxattr(task: Task, fd: Int, name: Word, value: Word, size: Word, flags: Int) -> int:
    """fsetxattr(2)."""
    key, data = _attribute_name(task, name), _attribute_value(task, value, size)
    return host.fsetxattr(real_file(task, fd).host, key, data, size, flags)


@call("removexattr")
def removexattr(task: Task, path: Word, name: Word) -> int:
    """removexattr(2)."""
    key = _attribute_name(task, name)
    known.changed()
    return _on_attributes(
        task, path, lambda text: host.removexattr(text, key), lambda held: host.fremovexattr(held, key), follow=True
    )


@call("lremovexattr")
def lremovexattr(task: Task, path: Word, name: Word) -> int:
    """lremovexattr(2)."""
    key = _attribute_name(task, name)
    known.changed()
    return _on_attributes(
        task, path, lambda text: host.lremovexattr(text, key), lambda held: host.fremovexattr(held, key), follow=False
    )


@call("fremovexattr")
def fremovexattr(task: Task, fd: Int, name: Word) -> int:
    """fremovexattr(2)."""
    return host.fremovexattr(real_file(task, fd).host, _attribute_name(task, name))
