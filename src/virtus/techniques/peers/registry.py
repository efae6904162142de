"""Outside programs that run the same guest; each `command` is what a user of that program would type."""

import os
import shlex
from pathlib import Path
from typing import Final

from virtus.machine.spec import GuestSpec
from virtus.techniques.base import Availability, Peer
from virtus.techniques.peers import riscv64, wine
from virtus.techniques.peers.installed import installed

UML_MEMORY: Final = "1024M"
UML_SCRIPT: Final = """#!/bin/sh
export PATH={path}
mount -t proc proc /proc
mount -t tmpfs tmpfs /dev/shm 2>/dev/null
{exports}
cd {cwd}
{command} >{scratch}.out 2>{scratch}.err </dev/null
echo $? >{scratch}.status
sync
echo o >/proc/sysrq-trigger
sleep 60
"""
"""PID 1 of the User Mode Linux instance: output and status leave through files of the host's."""


def _cwd(spec: GuestSpec) -> str:
    return spec.cwd or os.getcwd()


def _scratch(spec: GuestSpec) -> str:
    return spec.extra["scratch"]


def _native(spec: GuestSpec) -> list[str]:
    program, *arguments = spec.argv
    return [spec.extra.get("native", program), *arguments]


def _proot(spec: GuestSpec) -> list[str]:
    binds = [word for volume in spec.volumes for word in ("-b", f"{volume.source}:{volume.target}")]
    return ["proot", *binds, "-w", _cwd(spec), *spec.argv]


def _bubblewrap(spec: GuestSpec) -> list[str]:
    scratch = _scratch(spec)
    view = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", scratch, scratch]
    view += ["--setenv", "TMPDIR", scratch]  # /tmp is read-only there like everything else
    for volume in spec.volumes:
        view += ["--ro-bind" if volume.read_only else "--bind", str(volume.source), volume.target]
    net = ["--share-net"] if spec.net == "host" else []
    return ["bwrap", *view, "--unshare-all", *net, "--die-with-parent", "--chdir", _cwd(spec), "--", *spec.argv]


def _runsc(spec: GuestSpec) -> list[str]:
    options = ["-ignore-cgroups", "-network=none", "-platform=ptrace"]
    return ["runsc", *options, "do", "-cwd", _cwd(spec), *spec.argv]


def _user_mode_linux(spec: GuestSpec) -> list[str]:
    scratch = _scratch(spec)
    script = Path(scratch + ".init")
    environment = dict(spec.env or os.environ)
    exports = "\n".join(
        f"export {key}={shlex.quote(value)}" for key, value in environment.items() if key.isidentifier()
    )
    text = UML_SCRIPT.format(
        path=shlex.quote(environment.get("PATH", os.defpath)),
        exports=exports,
        cwd=shlex.quote(_cwd(spec)),
        command=shlex.join(spec.argv),
        scratch=scratch,
    )
    script.write_text(text)
    script.chmod(0o755)
    root = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"]
    consoles = ["con=null", "con0=null,fd:2", "con1=null", "ssl=null"]
    place = f"uml_dir={Path(scratch).parent}/"  # its pid file, else in the user's home
    return ["linux.uml", f"mem={UML_MEMORY}", place, *root, *consoles, "quiet", f"init={script}"]


PEERS: Final = (
    Peer("native", "", "the host itself, on its own files", lambda: Availability(True), _native),
    Peer("bubblewrap", "bubblewrap", "namespaces only", installed("bwrap", "bubblewrap"), _bubblewrap),
    Peer("proot", "proot", "ptrace, on the host's files", installed("proot", "proot"), _proot),
    Peer("runsc", "runsc", "gVisor's kernel, ptrace platform", installed("runsc", "runsc", root=True), _runsc),
    Peer(
        "linux.uml",
        "user-mode-linux",
        "User Mode Linux on hostfs",
        installed("linux.uml", "user-mode-linux"),
        _user_mode_linux,
    ),
    Peer(
        "qemu-riscv64",
        "qemu-user",
        "QEMU's translator for programs",
        installed("qemu-riscv64", "qemu-user"),
        riscv64.qemu,
        "RISC-V",
    ),
    Peer(
        "unicorn-riscv64",
        "",
        "QEMU's translator as a library, a few system calls",
        riscv64.probe_unicorn,
        riscv64.unicorn,
        "RISC-V",
    ),
    Peer(
        "wine",
        "wine64",
        "Windows' interfaces on Linux, its server running",
        wine.probe,
        wine.command,
        "Windows",
    ),
)


def names() -> list[str]:
    """Peers by name, native first."""
    return [peer.name for peer in PEERS]
