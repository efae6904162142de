"""The start image: what is imported from it is what the sources say, and a bad one is none."""

import marshal
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.cli import image_writer, start_image

SOURCE = Path(start_image.__file__).parent.parent
IDENTITY = marshal.dumps((start_image.identity(), {}))
EMPTY = start_image.MAGIC + len(IDENTITY).to_bytes(8, "little") + IDENTITY


@given(st.binary(max_size=60), st.integers(0, len(EMPTY)))
def test_any_bytes_are_an_image_or_none(data: bytes, length: int) -> None:
    for content in (data, EMPTY[:length] + data, start_image.MAGIC + data):
        assert start_image.StartImage(content).find_spec("os") is None


def test_what_is_kept_is_found_while_its_source_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "found.py"
    path.write_text("answer = 42\n")
    state = path.stat()
    code = marshal.dumps(compile("answer = 42", str(path), "exec"))
    entry = (False, str(path), state.st_mtime_ns, state.st_size, 0, 0)
    image = start_image.StartImage(image_writer._file({"found": (entry, code)}))
    spec = image.find_spec("found")
    assert spec is not None and spec.origin == str(path)
    scope: dict[str, object] = {}
    exec(image.get_code("found"), scope)
    assert scope["answer"] == 42
    assert image.kept() == {"found": ((*entry[:4], 0, len(code)), code)}
    assert image.find_spec("other") is None
    path.write_text("answer = 43 \n")
    assert image.find_spec("found") is None
    path.unlink()
    assert image.find_spec("found") is None
    assert image.kept() == {}


def test_an_image_that_others_can_write_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "some.image"
    path.write_bytes(image_writer._file({"a": ((False, "/", 0, 0, 0, 0), b"c")}))
    path.chmod(0o600)
    assert start_image._opened(str(path))
    path.chmod(0o622)
    assert not start_image._opened(str(path))
    path.chmod(0o600)
    link = tmp_path / "link.image"
    link.symlink_to(path)
    assert not start_image._opened(str(link))
    assert not start_image._opened(str(tmp_path))


def run(cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys, atexit; from virtus.cli import IMAGE, main; IMAGE.open(); import virtus.cli.commands\n"
    code += "said = [n for n, m in sys.modules.items() if type(getattr(m, '__loader__', 0)).__name__ == 'StartImage']\n"
    code += f"sys.argv[1:] = {words!r}; print(len(said), flush=True); main.main()"
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


@pytest.mark.slow
def test_the_second_run_imports_from_the_image_and_says_the_same(tmp_path: Path) -> None:
    first = run(tmp_path, "explain", "hvm")
    (image,) = (tmp_path / "virtus" / "start").iterdir()
    made = image.stat()
    assert made.st_mode & 0o777 == 0o600
    second = run(tmp_path, "explain", "hvm")
    assert (first.returncode, first.stderr) == (second.returncode, second.stderr) == (0, "")
    assert first.stdout.startswith("0\n")
    assert int(second.stdout.split()[0]) > 1
    assert first.stdout.partition("\n")[2] == second.stdout.partition("\n")[2]
    assert image.stat().st_mtime_ns == made.st_mtime_ns
    os.truncate(image, made.st_size // 2)  # codes are missing: what the index promises is not there
    third = run(tmp_path, "explain", "hvm")
    assert third.stdout.partition("\n")[2] == second.stdout.partition("\n")[2]


@pytest.mark.slow
def test_no_place_for_an_image_is_no_trouble(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = run(blocked, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    half = tmp_path / "virtus" / "start" / f"{start_image.image_name()}.half"
    half.parent.mkdir(parents=True)
    half.write_text("")
    assert run(tmp_path, "--version").returncode == 0
    assert [path.name for path in half.parent.iterdir()] == [half.name]  # another run is writing it
    os.utime(half, (0, 0))
    for _ in range(2):
        assert run(tmp_path, "--version").returncode == 0
    assert [path.name for path in half.parent.iterdir()] == [start_image.image_name()]


def test_the_oldest_images_go(tmp_path: Path) -> None:
    for age in range(image_writer.MOST_IMAGES + 3):
        path = tmp_path / f"{age}.image"
        path.write_text("")
        os.utime(path, (1000 - age, 1000 - age))
    image_writer._prune(str(tmp_path), ".image", image_writer.MOST_IMAGES)
    assert {path.name for path in tmp_path.iterdir()} == {f"{age}.image" for age in range(image_writer.MOST_IMAGES)}


def test_only_what_came_after_the_first_modules_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(sys.modules)
    image = start_image.StartImage(b"")
    assert start_image.missing(image, before) == []
    (tmp_path / "click_made_up.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(start_image, "OTHERS", frozenset({"click_made_up"}))
    __import__("click_made_up")
    try:
        assert start_image.missing(image, before) == ["click_made_up"]
        assert "click_made_up" in start_image.missing(image)
    finally:
        del sys.modules["click_made_up"]
