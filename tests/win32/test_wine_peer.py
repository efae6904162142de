"""Wine as a peer: the DLL it lacks, and that its prefix is made once and apart from the user's."""

import shutil
import subprocess
from pathlib import Path

import pytest

from virtus.comparison.candidates import Place, candidates
from virtus.errors import HostLacks
from virtus.machine.spec import GuestSpec
from virtus.techniques import choose
from virtus.techniques.peers import prng_dll, wine


def test_the_dll_that_wine_lacks_is_read_by_others() -> None:
    pefile = pytest.importorskip("pefile", reason="the Python package pefile is not installed")
    image = pefile.PE(data=prng_dll.image())
    assert [entry.name for entry in image.DIRECTORY_ENTRY_EXPORT.symbols] == [b"ProcessPrng"]
    (imported,) = image.DIRECTORY_ENTRY_IMPORT
    assert imported.dll == b"advapi32.dll"
    assert [entry.name for entry in imported.imports] == [b"SystemFunction036"]
    assert image.is_dll()


def test_the_import_is_called_where_the_loader_stores_it() -> None:
    pefile = pytest.importorskip("pefile", reason="the Python package pefile is not installed")
    image = pefile.PE(data=prng_dll.image())
    code = image.DIRECTORY_ENTRY_EXPORT.symbols[0].address
    call = image.get_data(code + 4, 6)
    assert call[:2] == b"\xff\x15"
    target = code + 10 + int.from_bytes(call[2:], "little", signed=True)
    assert target == image.DIRECTORY_ENTRY_IMPORT[0].imports[0].address - prng_dll.BASE


def fake(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_prefix_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    system = '"$WINEPREFIX/drive_c/windows/system32"'
    loader = fake(tmp_path, "loader", f'echo "$@" >> {log}; mkdir -p {system}')
    server = fake(tmp_path, "server", f'echo server "$@" >> {log}')
    monkeypatch.setattr(wine, "LOADERS", (loader,))
    monkeypatch.setattr(wine, "SERVERS", (server,))
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/bin:/usr/bin"}
    spec = GuestSpec(argv=["true", "a"], env=environment)
    first, second = wine.command(spec), wine.command(spec)
    assert first == second
    assert first[-2:] == [shutil.which("true", path=environment["PATH"]), "a"]
    assert log.read_text().splitlines() == ["wineboot -i", "server -w", "server -p10", "server -p10"]
    made = tmp_path / "cache/virtus/wine"
    assert f"WINEPREFIX={made}" in first
    assert (made / "drive_c/windows/system32/bcryptprimitives.dll").read_bytes() == prng_dll.image()
    assert subprocess.run(first, check=False).returncode == 0


def test_a_prefix_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wine, "LOADERS", (fake(tmp_path, "loader", "exit 3"),))
    with pytest.raises(HostLacks, match="making a prefix for Wine"):
        wine.command(GuestSpec(argv=["x"], env={"XDG_CACHE_HOME": str(tmp_path)}))


def test_a_windows_program_is_compared_with_wine_and_not_with_linux_techniques(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wine, "LOADERS", (fake(tmp_path, "loader", "exit 0"),))
    program = tmp_path / "tool.exe"
    program.write_bytes(prng_dll.image())
    spec = GuestSpec(argv=[str(program)])
    assert choose.system_of(choose.guest_of(spec)) == choose.WINDOWS
    place = Place(tmp_path / "place")
    place.base.mkdir()
    found, missing = candidates(spec, place, ["wine", "seccomp"])
    assert [candidate.name for candidate in found] == ["wine"]
    assert missing == [("seccomp", "it does not run programs for Windows")]
