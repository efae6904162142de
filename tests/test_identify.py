"""What a file is, told from its first bytes; whatever the bytes, an answer or a clear error."""

import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.errors import GuestNotFound, GuestNotRunnable
from virtus.guests.identify import Guest, Kind, classify, find, identify
from virtus.techniques.choose import technique_for

HERE = Path("/guest")


def elf(machine: int, bits: int = 2, order: int = 1, kind: int = 2) -> bytes:
    return (
        b"\x7fELF" + bytes([bits, order, 1]) + bytes(9) + struct.pack("<>"[order - 1] + "HH", kind, machine) + bytes(60)
    )


def pe(machine: int) -> bytes:
    head = bytearray(0x100)
    head[:2] = b"MZ"
    head[0x3C:0x40] = struct.pack("<I", 0x80)
    head[0x80:0x86] = b"PE\0\0" + struct.pack("<H", machine)
    return bytes(head)


def kernel(*, bits: int = 64) -> bytes:
    head = bytearray(0x300)
    head[:2] = b"MZ"
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    head[0x236] = bits == 64
    return bytes(head)


def vmlinux() -> bytes:
    header = bytearray(elf(62)[:64])
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 1)
    return bytes(header) + struct.pack("<IIQQQQQQ", 1, 5, 0x200000, 0xFFFFFFFF81000000, 0x1000000, 0, 0, 0)


def multiboot(*, at: int = 64, wrong: int = 0, magic: int = 0x1BADB002) -> bytes:
    words = [magic, 0, 24] if magic == 0xE85250D6 else [magic, 3]
    return bytes(at) + struct.pack(f"<{len(words) + 1}I", *words, (wrong - sum(words)) & 0xFFFFFFFF) + bytes(64)


def cd() -> bytes:
    return bytes(0x8000) + b"\1CD001\1" + bytes(100)


def disk_with_grub() -> bytes:
    """A master boot record with a partition, behind which GRUB's image begins, which is a multiboot kernel, too."""
    record = bytearray(512)
    struct.pack_into("<B3xB3xII", record, 446, 0x80, 0x83, 2048, 4096)
    record[510:] = b"\x55\xaa"
    return bytes(record) + multiboot(at=512)


def boot_sector() -> bytes:
    return (b"\xfa\x31\xc0".ljust(510, b"\0")) + b"\x55\xaa" + bytes(512)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (elf(62), Guest(str(HERE), Kind.ELF, "x86-64", 64)),
        (elf(243), Guest(str(HERE), Kind.ELF, "RISC-V", 64)),
        (elf(3, bits=1), Guest(str(HERE), Kind.ELF, "i386", 32)),
        (elf(22, order=2), Guest(str(HERE), Kind.ELF, "S/390", 64)),
        (elf(999), Guest(str(HERE), Kind.ELF, "processor 999", 64)),
        (pe(0x8664), Guest(str(HERE), Kind.PE, "x86-64")),
        (kernel(), Guest(str(HERE), Kind.KERNEL, "x86-64", 64)),
        (kernel(bits=32), Guest(str(HERE), Kind.KERNEL, "i386", 32)),
        (vmlinux(), Guest(str(HERE), Kind.KERNEL, "x86-64", 64)),
        (multiboot(), Guest(str(HERE), Kind.MULTIBOOT, "i386", 32)),
        (multiboot(at=16384, magic=0xE85250D6), Guest(str(HERE), Kind.MULTIBOOT, "i386", 32)),
        (elf(3, bits=1) + multiboot(), Guest(str(HERE), Kind.MULTIBOOT, "i386", 32)),
        (elf(3, bits=1) + multiboot(wrong=1), Guest(str(HERE), Kind.ELF, "i386", 32)),
        (cd(), Guest(str(HERE), Kind.CDROM)),
        (boot_sector(), Guest(str(HERE), Kind.DISK)),
        (disk_with_grub(), Guest(str(HERE), Kind.DISK)),
        (disk_with_grub()[512:], Guest(str(HERE), Kind.MULTIBOOT, "i386", 32)),
        (b"QFI\xfb\0\0\0\3", Guest(str(HERE), Kind.DISK)),
        (b"#! /bin/sh -e\necho\n", Guest(str(HERE), Kind.SCRIPT, interpreter="/bin/sh")),
    ],
)
def test_kinds(head: bytes, expected: Guest) -> None:
    assert classify(HERE, head, len(head)) == expected


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "empty"),
        (b"echo hello\n", "text file without #!"),
        (b"\x7fELF\x02\x01", "truncated"),
        (elf(62, bits=7), "damaged"),
        (elf(62, kind=1), "no program"),
        (b"#!\n", "names no interpreter"),
        (b"\0\1\2\3", "no kind of guest"),
        (b"MZ" + bytes(100), "DOS program"),
        (b"MZ", "truncated"),
    ],
)
def test_what_cannot_run_is_said_with_status_126(head: bytes, words: str) -> None:
    with pytest.raises(GuestNotRunnable, match=words) as caught:
        classify(HERE, head, len(head))
    assert caught.value.exit_status == 126


@given(st.binary(max_size=1200), st.sampled_from([b"", b"MZ", b"#!", b"\x7fELF", b"\x7fELF\x02\x01"]))
def test_any_bytes_are_identified_or_refused(tail: bytes, start: bytes) -> None:
    data = start + tail
    try:
        found = classify(HERE, data, len(data))
    except GuestNotRunnable as error:
        assert "\n" not in str(error)
    else:
        assert found.kind in Kind


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(GuestNotRunnable, match="a directory"):
        identify(tmp_path)
    with pytest.raises(GuestNotFound) as caught:
        identify(tmp_path / "missing")
    assert caught.value.exit_status == 127
    with pytest.raises(GuestNotRunnable, match="not a regular file"):
        identify(Path("/dev/null"))


def test_commands_are_found_in_the_guests_own_root(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    program = tmp_path / "usr/bin/tool"
    program.write_bytes(elf(62))
    program.chmod(0o755)
    (tmp_path / "bin").symlink_to("/usr/bin")  # absolute: within the guest's root
    (tmp_path / "out").symlink_to("../../../../usr/bin")
    assert find("tool", "/nowhere:/bin", tmp_path) == str(program)
    assert find("/bin/tool", "", tmp_path) == str(program)
    assert find("/out/tool", "", tmp_path) == str(program)
    with pytest.raises(GuestNotFound):
        find("sh", "/bin:/usr/bin", tmp_path)


def test_what_no_shell_runs_is_found_where_the_user_is(tmp_path: Path) -> None:
    for name, data in (("tool.exe", pe(0x8664)), ("vmlinuz", kernel()), ("prog", elf(62)), ("text", b"words\n")):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o755)
    for name in ("tool.exe", "vmlinuz"):
        assert find(name, "/nowhere", cwd=str(tmp_path)) == str(tmp_path / name)
    with pytest.raises(GuestNotFound, match=r"write \./prog"):
        find("prog", "/nowhere", cwd=str(tmp_path))
    with pytest.raises(GuestNotFound, match="or give a path"):
        find("text", "/nowhere", cwd=str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/vmlinuz").write_bytes(elf(62))
    (tmp_path / "bin/vmlinuz").chmod(0o755)
    assert find("vmlinuz", str(tmp_path / "bin"), cwd=str(tmp_path)) == str(tmp_path / "bin/vmlinuz")


def test_the_technique_that_fits() -> None:
    assert technique_for(identify(Path(sys.executable).resolve())) == "seccomp"
    assert technique_for(classify(HERE, elf(243), 100)) == "emulation"
    assert technique_for(classify(HERE, kernel(), len(kernel()))) == "paravirt"
    assert technique_for(classify(HERE, pe(0x8664), 0x100)) == "api-wrapper"
    deck = b"      ORIGIN CNTRL 325\n"
    assert technique_for(classify(Path("payroll.7070"), deck, len(deck))) == "emulation"
    for head, needed in (
        (elf(183), "AArch64"),
        (elf(243, bits=1), "32-bit"),
        (pe(0x14C), "Windows program for i386"),
    ):
        with pytest.raises(GuestNotRunnable, match=needed):
            technique_for(classify(HERE, head, len(head)))
