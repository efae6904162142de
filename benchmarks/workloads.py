"""The guests of the benchmarks: real C sources to compile, and loops around one system call.

`python -m benchmarks.workloads` prepares all and prints their paths.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).parent / "results" / "workloads"
SOURCES: Final = Path(__file__).parent / "programs"
LUPA: Final = "2.8"
"""The release of lupa on PyPI whose source distribution brings Lua 5.4 along."""
COMPILE: Final = """#!/bin/sh
# Compiles the files of Lua 5.4 that are named (all of them otherwise) into $VIRTUS_SCRATCH, one after the other;
# prints a digest of the objects.
cd {sources} || exit 1
[ $# -gt 0 ] || set -- *.c
for file in "$@"; do
    case $file in ltests.c | onelua.c) continue ;; esac
    gcc -O1 -c "$file" -o "${{VIRTUS_SCRATCH:-/tmp}}/${{file%.c}}.o" || exit 1
done
cat "${{VIRTUS_SCRATCH:-/tmp}}"/*.o | md5sum
"""
LOOP: Final = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
/* usage: loop CALLS NUMBER: microseconds for each system call NUMBER */
int main(int count, char **words) {
    long calls = atol(words[1]), number = atol(words[2]);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long i = 0; i < calls; i++) syscall(number);
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%.4f\n", ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / calls / 1e3);
    return 0;
}
"""


def compile_lua() -> Path:
    """A script that compiles Lua; its sources come from the source distribution of lupa."""
    script = CACHE / "compile-lua"
    sources = next((path.parent for path in CACHE.rglob("lapi.c") if path.parent.name == "lua54"), None)
    if sources is None:
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as directory:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "lupa"]
            # pip asks a source distribution for its metadata, and this one would build LuaJIT first
            environment = {**os.environ, "LUPA_NO_LUAJIT": "true"}
            subprocess.run([*pip, "--dest", directory, f"lupa=={LUPA}"], check=True, env=environment)
            archive = next(Path(directory).glob("*.tar.gz"))
            subprocess.run(["tar", "-xzf", str(archive), "-C", str(CACHE)], check=True)
        sources = next(path.parent for path in CACHE.rglob("lapi.c") if path.parent.name == "lua54")
    script.write_text(COMPILE.format(sources=sources))
    script.chmod(0o755)
    return script


def call_loop() -> Path:
    """A static program that repeats one system call and prints what each took, in microseconds."""
    program = CACHE / "loop"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        source = CACHE / "loop.c"
        source.write_text(LOOP)
        subprocess.run(["gcc", "-O1", "-static", "-o", str(program), str(source)], check=True)
    return program


def notified() -> Path:
    """A static program that answers its own system calls by seccomp's notification, and prints what each took."""
    program = CACHE / "notified"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O1", "-static", "-o", str(program), str(SOURCES / "notified.c")], check=True)
    return program


if __name__ == "__main__":
    print(compile_lua())
    print(notified())
    print(call_loop())
