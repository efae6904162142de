"""Who a task is (credentials(7)), and what system it believes it runs on.

Users that the sandbox's user namespace does not map cannot be taken on (EINVAL), exactly as the host answers there.
"""

import ctypes
import errno
import os
from struct import Struct, pack, unpack
from typing import Final

from virtus.host.direct_call import direct_call
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux.table import Int, Uint, Word, call
from virtus.personalities.linux.task import Credentials, Task

UNCHANGED: Final = 0xFFFFFFFF  # (uid_t) -1
NGROUPS_MAX: Final = 65536  # include/uapi/linux/limits.h
# include/uapi/linux/capability.h
CAP_SETGID: Final = 1 << 6
CAP_SETUID: Final = 1 << 7
CAP_SETPCAP: Final = 1 << 8
CAP_SYS_ADMIN: Final = 1 << 21
CAPABILITY_VERSIONS: Final = {0x19980330: 1, 0x20071026: 2, 0x20080522: 2}  # with how many 32-bit words per set
CAPABILITY_VERSION_3: Final = 0x20080522
UTS_LENGTH: Final = 64  # __NEW_UTS_LEN, include/uapi/linux/utsname.h
PERSONALITY_QUERY: Final = 0xFFFFFFFF
PERSONALITY_FLAGS: Final = 0x7FF0000  # UNAME26 0x20000 ... ADDR_COMPAT_LAYOUT, all but the execution domain
GRND_FLAGS: Final = 1 | 2 | 4  # GRND_NONBLOCK, GRND_RANDOM, GRND_INSECURE
RANDOM_MAX: Final = 33554431  # getrandom(2): the most that a single call returns
PIECE: Final = 1 << 20
SYSINFO: Final = Struct("<q3Q6QHHxxxxQQI4x")  # struct sysinfo, include/uapi/linux/sysinfo.h
SYSINFO_PROCESSES: Final = 10  # the field "procs"


def _mapped(task: Task, name: str, number: int) -> bool:
    """Whether the user namespace has this id; `name` is uid_map or gid_map."""
    descriptor = os.open(f"self/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=task.kernel.procfs)
    with open(descriptor, "rb") as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    return any(inside <= number < inside + count for inside, _outside, count in ranges)


def _need_mapped(task: Task, name: str, *numbers: int) -> None:
    for number in numbers:
        if number != UNCHANGED and not _mapped(task, name, number):
            raise OSError(errno.EINVAL, "")


def _become(task: Task, uid: int, euid: int, suid: int) -> int:
    """Take on user ids; capabilities follow as capabilities(7) has it, and what changed is no longer dumpable."""
    old = task.credentials
    permitted, effective = old.permitted, old.effective
    if 0 in (old.uid, old.euid, old.suid) and 0 not in (uid, euid, suid):
        permitted = effective = 0
    if not old.euid and euid:
        effective = 0
    elif old.euid and not euid:
        effective = permitted
    if euid not in (old.euid, old.fsuid):
        task.process.dumpable = 0
    task.credentials = old.changed(uid=uid, euid=euid, suid=suid, fsuid=euid, permitted=permitted, effective=effective)
    return 0


def _become_group(task: Task, gid: int, egid: int, sgid: int) -> int:
    if egid != task.credentials.egid:
        task.process.dumpable = 0
    task.credentials = task.credentials.changed(gid=gid, egid=egid, sgid=sgid, fsgid=egid)
    return 0


@call("getuid")
def getuid(task: Task) -> int:
    """getuid(2)."""
    return task.credentials.uid


@call("geteuid")
def geteuid(task: Task) -> int:
    """geteuid(2)."""
    return task.credentials.euid


@call("getgid")
def getgid(task: Task) -> int:
    """getgid(2)."""
    return task.credentials.gid


@call("getegid")
def getegid(task: Task) -> int:
    """getegid(2)."""
    return task.credentials.egid


@call("getresuid")
def getresuid(task: Task, uid: Word, euid: Word, suid: Word) -> int:
    """getresuid(2)."""
    mine = task.credentials
    for address, value in ((uid, mine.uid), (euid, mine.euid), (suid, mine.suid)):
        task.write(address, value.to_bytes(4, "little"))
    return 0


@call("getresgid")
def getresgid(task: Task, gid: Word, egid: Word, sgid: Word) -> int:
    """getresgid(2)."""
    mine = task.credentials
    for address, value in ((gid, mine.gid), (egid, mine.egid), (sgid, mine.sgid)):
        task.write(address, value.to_bytes(4, "little"))
    return 0


@call("setuid")
def setuid(task: Task, uid: Uint) -> int:
    """setuid(2)."""
    mine = task.credentials
    if uid == UNCHANGED:
        raise OSError(errno.EINVAL, "")
    _need_mapped(task, "uid_map", uid)
    if mine.effective & CAP_SETUID:
        return _become(task, uid, uid, uid)
    if uid in (mine.uid, mine.suid):
        return _become(task, mine.uid, uid, mine.suid)
    raise OSError(errno.EPERM, "")


@call("setgid")
def setgid(task: Task, gid: Uint) -> int:
    """setgid(2)."""
    mine = task.credentials
    if gid == UNCHANGED:
        raise OSError(errno.EINVAL, "")
    _need_mapped(task, "gid_map", gid)
    if mine.effective & CAP_SETGID:
        return _become_group(task, gid, gid, gid)
    if gid in (mine.gid, mine.sgid):
        return _become_group(task, mine.gid, gid, mine.sgid)
    raise OSError(errno.EPERM, "")


def _re(real: int, effective: int, mine: tuple[int, int, int], capable: bool) -> tuple[int, int, int]:
    """The rules of setreuid(2) and setregid(2) on (real, effective, saved)."""
    new_real = mine[0] if real == UNCHANGED else real
    new_effective = mine[1] if effective == UNCHANGED else effective
    if not capable and (new_real not in mine[:2] or new_effective not in mine):
        raise OSError(errno.EPERM, "")
    saved = mine[2]
    if real != UNCHANGED or (effective != UNCHANGED and effective != mine[0]):
        saved = new_effective
    return new_real, new_effective, saved


def _res(wanted: tuple[int, int, int], mine: tuple[int, int, int], capable: bool) -> tuple[int, int, int]:
    """The rules of setresuid(2) and setresgid(2)."""
    real, effective, saved = (old if new == UNCHANGED else new for new, old in zip(wanted, mine, strict=True))
    if not capable and not {real, effective, saved} <= set(mine):
        raise OSError(errno.EPERM, "")
    return real, effective, saved


@call("setreuid")
def setreuid(task: Task, uid: Uint, euid: Uint) -> int:
    """setreuid(2)."""
    mine = task.credentials
    _need_mapped(task, "uid_map", uid, euid)
    return _become(task, *_re(uid, euid, (mine.uid, mine.euid, mine.suid), bool(mine.effective & CAP_SETUID)))


@call("setregid")
def setregid(task: Task, gid: Uint, egid: Uint) -> int:
    """setregid(2)."""
    mine = task.credentials
    _need_mapped(task, "gid_map", gid, egid)
    return _become_group(task, *_re(gid, egid, (mine.gid, mine.egid, mine.sgid), bool(mine.effective & CAP_SETGID)))


@call("setresuid")
def setresuid(task: Task, uid: Uint, euid: Uint, suid: Uint) -> int:
    """setresuid(2)."""
    mine = task.credentials
    _need_mapped(task, "uid_map", uid, euid, suid)
    capable = bool(mine.effective & CAP_SETUID)
    return _become(task, *_res((uid, euid, suid), (mine.uid, mine.euid, mine.suid), capable))


@call("setresgid")
def setresgid(task: Task, gid: Uint, egid: Uint, sgid: Uint) -> int:
    """setresgid(2)."""
    mine = task.credentials
    _need_mapped(task, "gid_map", gid, egid, sgid)
    capable = bool(mine.effective & CAP_SETGID)
    return _become_group(task, *_res((gid, egid, sgid), (mine.gid, mine.egid, mine.sgid), capable))


@call("setfsuid")
def setfsuid(task: Task, uid: Uint) -> int:
    """setfsuid(2): the old id, whether or not it was changed."""
    mine = task.credentials
    if uid in (mine.uid, mine.euid, mine.suid, mine.fsuid) or (
        mine.effective & CAP_SETUID and _mapped(task, "uid_map", uid)
    ):
        task.credentials = mine.changed(fsuid=uid)
    return mine.fsuid


@call("setfsgid")
def setfsgid(task: Task, gid: Uint) -> int:
    """setfsgid(2): the old id, whether or not it was changed."""
    mine = task.credentials
    if gid in (mine.gid, mine.egid, mine.sgid, mine.fsgid) or (
        mine.effective & CAP_SETGID and _mapped(task, "gid_map", gid)
    ):
        task.credentials = mine.changed(fsgid=gid)
    return mine.fsgid


@call("getgroups")
def getgroups(task: Task, count: Int, address: Word) -> int:
    """getgroups(2)."""
    groups = task.credentials.groups
    if count < 0 or 0 < count < len(groups):
        raise OSError(errno.EINVAL, "")
    if count:
        task.write(address, pack(f"<{len(groups)}I", *groups))
    return len(groups)


def _groups_allowed(task: Task) -> bool:
    """user_namespaces(7): an ordinary user's namespace denies setgroups(2) for good."""
    descriptor = os.open("self/setgroups", os.O_RDONLY | os.O_CLOEXEC, dir_fd=task.kernel.procfs)
    with open(descriptor, "rb") as file:
        return file.read().strip() == b"allow"


@call("setgroups")
def setgroups(task: Task, count: Int, address: Word) -> int:
    """setgroups(2)."""
    if not task.credentials.effective & CAP_SETGID or not _groups_allowed(task):
        raise OSError(errno.EPERM, "")
    if not 0 <= count <= NGROUPS_MAX:
        raise OSError(errno.EINVAL, "")
    groups = unpack(f"<{count}I", task.read(address, 4 * count))
    _need_mapped(task, "gid_map", *groups)
    task.credentials = task.credentials.changed(groups=tuple(sorted(groups)))
    return 0


def _capability_words(task: Task, header: int) -> tuple[int, int]:
    """How many words each set has, and the pid; raises EINVAL and tells the newest version for an unknown one."""
    version, pid = unpack("<Ii", task.read(header, 8))
    words = CAPABILITY_VERSIONS.get(version)
    if words is None:
        task.write(header, CAPABILITY_VERSION_3.to_bytes(4, "little"))
        raise OSError(errno.EINVAL, "")
    return words, pid


@call("capget")
def capget(task: Task, header: Word, data: Word) -> int:
    """capget(2)."""
    try:
        words, pid = _capability_words(task, header)
    except OSError as error:
        if error.errno == errno.EINVAL and not data:
            return 0  # that is how libcap asks for the version
        raise
    if pid < 0:
        raise OSError(errno.EINVAL, "")
    other = task if not pid else task.kernel.tasks.get(pid)
    if other is None:
        raise OSError(errno.ESRCH, "")
    mine = other.credentials
    rows = [
        word
        for shift in range(0, 32 * words, 32)
        for word in (
            mine.effective >> shift & 0xFFFFFFFF,
            mine.permitted >> shift & 0xFFFFFFFF,
            mine.inheritable >> shift & 0xFFFFFFFF,
        )
    ]
    if data:
        task.write(data, pack(f"<{len(rows)}I", *rows))
    return 0


@call("capset", note="files are opened by user and group alone: a root without CAP_DAC_OVERRIDE still passes")
def capset(task: Task, header: Word, data: Word) -> int:
    """capset(2)."""
    words, pid = _capability_words(task, header)
    if pid not in (0, task.tid):
        raise OSError(errno.EPERM, "")
    rows = unpack(f"<{3 * words}I", task.read(data, 12 * words))
    effective, permitted, inheritable = (
        sum(rows[3 * at + which] << 32 * at for at in range(words)) for which in range(3)
    )
    mine = task.credentials
    allowed = mine.inheritable | (-1 if mine.effective & CAP_SETPCAP else mine.permitted)
    if permitted & ~mine.permitted or effective & ~permitted or inheritable & ~allowed:
        raise OSError(errno.EPERM, "")
    task.credentials = mine.changed(effective=effective, permitted=permitted, inheritable=inheritable)
    return 0


def after_exec(credentials: Credentials) -> Credentials:
    """What execve(2) makes of credentials: saved and file-system ids follow, root has all its capabilities again."""
    permitted = effective = 0
    if 0 in (credentials.uid, credentials.euid):
        permitted = credentials.inheritable | credentials.permitted
        effective = permitted if not credentials.euid else 0
    return credentials.changed(
        suid=credentials.euid, fsuid=credentials.euid, sgid=credentials.egid, fsgid=credentials.egid,
        permitted=permitted, effective=effective,
    )  # fmt: skip


_sysinfo = ctypes.create_string_buffer(SYSINFO.size)


@call("uname")
def uname(task: Task, address: Word) -> int:
    """uname(2): the host's kernel release, since its features are what guests get; names of the machine's own."""
    kernel, host = task.kernel, os.uname()
    texts = (
        "Linux", kernel.hostname, host.release, host.version, kernel.abi.machine, kernel.domainname
    )  # fmt: skip
    task.write(address, b"".join(os.fsencode(text)[:UTS_LENGTH].ljust(UTS_LENGTH + 1, b"\0") for text in texts))
    return 0


def _name(task: Task, address: int, length: int) -> str:
    if not task.credentials.effective & CAP_SYS_ADMIN:
        raise OSError(errno.EPERM, "")
    if not 0 <= length <= UTS_LENGTH:
        raise OSError(errno.EINVAL, "")
    return os.fsdecode(task.read(address, length).split(b"\0", 1)[0])


@call("sethostname")
def sethostname(task: Task, address: Word, length: Int) -> int:
    """sethostname(2): of this machine alone."""
    task.kernel.hostname = _name(task, address, length)
    return 0


@call("setdomainname")
def setdomainname(task: Task, address: Word, length: Int) -> int:
    """setdomainname(2): of this machine alone."""
    task.kernel.domainname = _name(task, address, length)
    return 0


@call("personality", note="PER_LINUX only; flags are kept, but addresses stay random and the rest has no effect")
def personality(task: Task, wanted: Uint) -> int:
    """personality(2): the old one."""
    old = task.process.personality
    if wanted != PERSONALITY_QUERY:
        if wanted & ~PERSONALITY_FLAGS:
            raise OSError(errno.EINVAL, "")
        task.process.personality = wanted
    return old


@call("sysinfo")
def sysinfo(task: Task, address: Word) -> int:
    """sysinfo(2): the host's memory and load, this machine's number of threads."""
    direct_call(NUMBERS["sysinfo"], ctypes.addressof(_sysinfo))
    fields = list(SYSINFO.unpack(_sysinfo))
    fields[SYSINFO_PROCESSES] = min(len(task.kernel.tasks) + 1, 0xFFFF)
    task.write(address, SYSINFO.pack(*fields))
    return 0


@call("getrandom")
def getrandom(task: Task, address: Word, count: Word, flags: Uint) -> int:
    """getrandom(2)."""
    if flags & ~GRND_FLAGS or flags & 6 == 6:
        raise OSError(errno.EINVAL, "")
    if count <= PIECE:
        task.write(address, os.urandom(count))
        return count
    count = min(count, RANDOM_MAX)
    for at in range(0, count, PIECE):
        task.write(address + at, os.urandom(min(PIECE, count - at)))
    return count
