"""The machine code of the in-process engine is what its comments say, by the GNU assembler."""

import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.guest_runs import need, virtus
from tests.win32.compilers import build
from virtus.vcpus import inprocess_code, inprocess_hot

PIECE = re.compile(r'\s*"([0-9a-f]+)"\s+# (.*)')
PART = re.compile(r'\s+(?:\("(\w+)", \(|"([\w ]+)": \()')


def assembled(lines: list[str], directory: Path) -> bytes:
    source, made, code = directory / "code.s", directory / "code.o", directory / "code.bin"
    source.write_text("\n".join([".intel_syntax noprefix", *lines, ""]))
    subprocess.run(["as", "--64", "-o", made, source], check=True, capture_output=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", made, code], check=True, capture_output=True)
    return code.read_bytes()


def parts(module: ModuleType) -> dict[str, list[tuple[str, str]]]:
    """Of each part its pieces: bytes in hexadecimal, "" for a label, and what they are."""
    result: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in Path(str(module.__file__)).read_text().splitlines():
        part, piece = PART.match(line), PIECE.match(line)
        if part:
            current = result[part[1] or part[2]] = []
        elif piece:
            current.append((piece[1], piece[2]))
        elif re.fullmatch(r"\s+# \w+:", line):
            current.append(("", line.split()[1]))
    return result


@pytest.mark.skipif(not shutil.which("as") or not shutil.which("objcopy"), reason="no GNU assembler here")
def test_the_engines_code(tmp_path: Path) -> None:
    names = [name for name in vars(inprocess_code) if name.isupper() and isinstance(vars(inprocess_code)[name], int)]
    lines = [f".set {name}, {vars(inprocess_code)[name]}" for name in names if name not in ("REFUSED", "CALL")]
    for pieces in parts(inprocess_code).values():
        lines += [text for _, text in pieces]
    assert assembled(lines, tmp_path) == inprocess_code.BYTES


@pytest.mark.skipif(not shutil.which("as") or not shutil.which("objcopy"), reason="no GNU assembler here")
@pytest.mark.parametrize("module", [inprocess_hot, *inprocess_hot.PARTS])
def test_the_hot_functions(module: ModuleType, tmp_path: Path) -> None:
    found = parts(module)
    assert set(" ".join(found).split()) <= set(inprocess_hot.CODE)
    lines: list[str] = []
    for number, pieces in enumerate(found.values()):
        labels = "|".join({"slow", *(text[:-1] for data, text in pieces if not data)})
        lines += [re.sub(rf"\b({labels})\b", rf"\g<1>_{number}", text) for _, text in pieces]
    code = b"".join(bytes.fromhex(text) for text in module.CODE_OF.values())
    assert assembled(lines, tmp_path) == code


def test_every_part_has_its_place() -> None:
    assert list(inprocess_code.OFFSETS.values()) == sorted(set(inprocess_code.OFFSETS.values()))
    number, place = 7, 4096
    stub = inprocess_code.stub(number, place)
    assert stub[1:5] == number.to_bytes(4, "little")
    target = place + 10 + int.from_bytes(stub[6:10], "little", signed=True)
    assert target == inprocess_code.OFFSETS["call"]


@pytest.mark.slow
def test_plain_functions_give_what_those_of_the_personality_give(tmp_path: Path) -> None:
    need("api-wrapper")
    program = str(build("plain", tmp_path, "-lmincore"))
    options = ["--with", "api-wrapper"]
    quick = virtus("run", *options, "--", program)
    slow = virtus("run", *options, f"--trace={tmp_path}/trace", "--", program)  # all calls come to us
    assert (quick.returncode, slow.returncode) == (0, 0), slow.stderr[-1000:]
    assert len(quick.stdout.splitlines()) > 600
    assert quick.stdout == slow.stdout
    assert (tmp_path / "trace").read_text().count("\nWideCharToMultiByte(") >= 600


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["api-wrapper", "api-emulation"])
def test_functions_of_handles_give_what_those_of_the_personality_give(technique: str, tmp_path: Path) -> None:
    need(technique)
    program = str(build("handles", tmp_path, "-lntdll"))
    options = ["--with", technique]
    quick = virtus("run", *options, "--", program)
    slow = virtus("run", *options, f"--trace={tmp_path}/trace", "--", program)  # all calls come to us
    assert (quick.returncode, slow.returncode) == (0, 0), (quick.stderr[-1000:], slow.stderr[-1000:])
    assert len(quick.stdout.splitlines()) > 1400
    assert quick.stdout == slow.stdout


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["api-wrapper", "api-emulation"])
def test_a_fault_in_a_function_is_its_callers(technique: str, tmp_path: Path) -> None:
    need(technique)
    (tmp_path / "file").write_text("hello")
    done = virtus("run", "--with", technique, "--", build("bad_pointers", tmp_path), cwd=tmp_path)
    assert done.stdout.splitlines()[-1:] == [b"faults 10, unwound 10"], done


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["api-wrapper", "api-emulation"])
def test_a_fiber_that_is_deleted_leaves_its_threads_block_alone(technique: str, tmp_path: Path) -> None:
    need(technique)
    done = virtus("run", "--with", technique, "--", build("deleted_fibers", tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, [b"40"]), done


@pytest.mark.slow
def test_readers_and_writers_come_at_once(tmp_path: Path) -> None:
    need("api-wrapper")
    (tmp_path / "file").write_text("hello")
    done = virtus("run", "--with", "api-wrapper", "--", build("share_race", tmp_path), cwd=tmp_path)
    assert done.stdout.split() == [b"0", b"1", b"1"], done


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["api-wrapper", "api-emulation"])
def test_files_are_opened_and_enumerated_as_the_personality_does(technique: str, tmp_path: Path) -> None:
    need(technique)
    program = build("opening", tmp_path)
    place = tmp_path / "place"
    place.mkdir()
    (place / "link").symlink_to("plain.txt")
    (place / "dangling").symlink_to("nothing")
    options = ["--with", technique]
    quick = virtus("run", *options, "--", program, "1", cwd=place)
    slow = virtus("run", *options, f"--trace={tmp_path}/trace", "--", program, "0", cwd=place)  # all calls come to us
    assert (quick.returncode, slow.returncode) == (0, 0), (quick.stderr[-1000:], slow.stderr[-1000:])
    lines = quick.stdout.splitlines()
    assert lines == slow.stdout.splitlines()
    assert lines[-1] == b"handles 0"
    assert b"many 2200 1100" in lines


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--with", "api-wrapper"], ["--with", "api-wrapper", "--trace=trace"],
                                     ["--with", "api-emulation"]])  # fmt: skip
def test_threads_wait_on_addresses(options: list[str], tmp_path: Path) -> None:
    need(options[1])
    program = str(build("addresses", tmp_path, "-lsynchronization"))
    ran = virtus("run", *(option.replace("=", f"={tmp_path}/") for option in options), "--", program)
    turns = ["1600"] * (3 + 2 + 1) + ["40", "8000"]
    assert ran.stdout.decode().splitlines() == [*turns, "0 1460 1", "1", "0 87", "0 1460"], ran.stderr[-1000:]


@pytest.mark.slow
def test_pages_that_machine_code_commits_are_accounted_for(tmp_path: Path) -> None:
    need("api-wrapper")
    program = str(build("commits", tmp_path))
    quick = virtus("run", "--with", "api-wrapper", "--", program)
    slow = virtus("run", "--with", "api-wrapper", f"--trace={tmp_path}/trace", "--", program)  # all calls come to us
    assert (quick.returncode, slow.returncode) == (0, 0), (quick.stderr[-1000:], slow.stderr[-1000:])
    assert len(quick.stdout.splitlines()) > 600
    assert quick.stdout == slow.stdout
