"""The modules of a process: its program, libraries loaded as guest code, and ours, which are rows of the table.

Which a name means: a library that the table serves is ours, as Windows' known DLLs are never looked for elsewhere; else
what lies beside the program; else a C runtime of an installed Wine. An API set (Microsoft: Windows API sets) is
the library that implements it.
"""

import mmap
import os
import struct
from collections.abc import Callable
from typing import Final

from virtus.errors import GuestNotRunnable
from virtus.guests import pe
from virtus.personalities.win32 import catalogue
from virtus.personalities.win32.guest import Engine, Memory
from virtus.personalities.win32.ordinals import named
from virtus.personalities.win32.regions import (
    PAGE_EXECUTE_READ,
    PAGE_EXECUTE_READWRITE,
    PAGE_EXECUTE_WRITECOPY,
    PAGE_NOACCESS,
    PAGE_READONLY,
    PAGE_READWRITE,
    Kind,
    Region,
    Regions,
)  # fmt: skip
from virtus.records import dataclass

READ, WRITE = 1, 2
PROTECTIONS: Final = {
    0: PAGE_NOACCESS, 1: PAGE_READONLY, 3: PAGE_READWRITE, 4: PAGE_EXECUTE_READ, 5: PAGE_EXECUTE_READ,
    7: PAGE_EXECUTE_READWRITE,
}  # fmt: skip
"""Windows' protections by Linux's rights."""
PAGE: Final = 4096
WINE_LIBRARIES: Final = (
    "/usr/lib/x86_64-linux-gnu/wine/x86_64-windows",
    "/usr/lib64/wine/x86_64-windows",
    "/usr/lib/wine/x86_64-windows",
    "/opt/wine-stable/lib64/wine/x86_64-windows",
)
"""Where distributions have Wine's libraries for guests (LGPL): of these only C runtimes are used."""
RUNTIMES: Final = frozenset(
    [
        "ucrtbase.dll",
        "msvcrt.dll",
        "vcruntime140.dll",
        "vcruntime140_1.dll",
        "msvcp140.dll",
        "msvcp140_1.dll",
        "msvcp140_2.dll",
        "concrt140.dll",
        "msvcr100.dll",
        "msvcr110.dll",
        "msvcr120.dll",
        "msvcp100.dll",
        "msvcp110.dll",
        "msvcp120.dll",
    ]
)
RUNTIME_VARIABLES: Final = ("_acmdln", "__initenv", "_commode", "_fmode", "_wcmdln", "_environ")
"""What a C runtime of ours exports that is no function: each has eight bytes of the guest's memory."""
MOST_FORWARDS: Final = 16


@dataclass(slots=True)
class Module:
    """One module. `image` is None for a library of ours."""

    name: str  # in lower case, with its extension
    path: str  # on the host; "" for ours
    base: int
    size: int
    image: pe.Image | None = None
    tls_index: int = -1
    started: bool = False

    @property
    def entry(self) -> int:
        """The guest address where it begins, 0 where it has no code to run at the start."""
        return self.base + self.image.entry if self.image is not None and self.image.entry else 0


def real_name(name: str) -> str:
    """What a library's name means: in lower case, with ".dll", an API set replaced by who implements it."""
    name = os.path.basename(name.replace("\\", "/")).lower()
    if "." not in name:
        name += ".dll"
    if name.startswith("api-ms-win-crt-"):
        return "ucrtbase.dll"
    if name.startswith(("api-ms-", "ext-ms-")):
        return "kernelbase.dll"
    return name


def obstacle(image: pe.Image) -> tuple[str, str]:
    """Why a program cannot be run at all, and what runs it; "" for nothing."""
    if image.is_managed:
        return "a program for .NET", "Wine with Mono, or .NET for Linux, runs it"
    if image.is_dll:
        return "a library, no program", ""
    if image.subsystem != pe.SUBSYSTEM_CONSOLE:
        what = "a program with windows" if image.subsystem == pe.SUBSYSTEM_GUI else "no program for a console"
        return what, "wine runs programs with windows on a desktop; only those for a console run here"
    return "", ""


def _contents(fd: int) -> "bytes | mmap.mmap":
    """A file's bytes, which the host reads as they are looked at: of a large program that is little."""
    try:
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    except (ValueError, OSError):  # nothing in it, or no file of pages
        return os.read(fd, 1)


class Modules:
    """All modules of one process.

    `missing(dll, name)` gives the guest address to store for a function that nobody has.
    """

    def __init__(self, engine: Engine, missing: Callable[[str, str], int], regions: Regions) -> None:
        self._engine = engine
        self._regions = regions
        self._memory: Memory = engine.memory
        self._missing = missing
        self._by_name: dict[str, Module] = {}
        self.order: list[Module] = []
        self.directory = ""
        self.ours = catalogue.dlls()
        self.tls: list[Module] = []
        self._variables = 0

    # What there is ---------------------------------------------------------------------------------------------------

    @property
    def program(self) -> Module:
        """The program itself."""
        return next(module for module in self.order if module.image is not None and not module.image.is_dll)

    def at(self, address: int) -> Module | None:
        """The module that an address lies in."""
        return next((module for module in self.order if module.base <= address < module.base + module.size), None)

    def by_base(self, base: int) -> Module | None:
        """The module of a handle."""
        return next((module for module in self.order if module.base == base), None)

    def loaded(self, name: str) -> Module | None:
        """A module that is there already, by its name with or without ".dll", or by its path."""
        return self._by_name.get(real_name(name))

    def load(self, name: str) -> Module | None:
        """A library by name or host path, loaded if it is not there; None where there is none.

        Its code for the start is not run: see `starting`. Raises GuestNotRunnable for one that is damaged.
        """
        real = real_name(name)
        found = self._by_name.get(real)
        if found is not None:
            return found
        stem = real.removesuffix(".dll")
        if stem in self.ours and not (real in RUNTIMES and self._find(real)):
            return self._serve(real)
        path = name if "/" in name else self._find(real)
        if not path or not os.path.isfile(path):
            return None
        return self.map(path)

    def address_of(self, module: Module, name: str) -> int | None:
        """A function of a module by name or "#ordinal"; None where it has none."""
        for _ in range(MOST_FORWARDS):
            if module.image is None and name in RUNTIME_VARIABLES and module.name in RUNTIMES:
                return self.variable(name)
            if module.image is None:
                return self._engine.resolve(module.name.removesuffix(".dll"), named(module.name, name))
            found = module.image.export(name)
            if found is None:
                return None
            if isinstance(found, int):
                return module.base + found
            dll, _, name = found.rpartition(".")
            target = self.load(dll + ".dll")
            if target is None:
                return None
            module = target
        return None

    def variable(self, name: str) -> int:
        """The address of a variable of our C runtime."""
        if not self._variables:
            self._variables = self._memory.map(0, PAGE, READ | WRITE)
        return self._variables + 8 * RUNTIME_VARIABLES.index(name)

    # Loading ---------------------------------------------------------------------------------------------------------

    def map(self, path: str) -> Module:
        """Load an image from a host path, with everything that it imports; raises GuestNotRunnable."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise GuestNotRunnable(f"reading {path}", error.strerror or str(error)) from error
        try:
            return self._map(path, fd)
        finally:
            os.close(fd)

    def _map(self, path: str, fd: int) -> Module:
        image = pe.parse(_contents(fd), os.path.basename(path))
        if not self.order and not self._by_name:  # the first one is the program
            found, remedy = obstacle(image)
            if found:
                raise GuestNotRunnable(f"running {path}", found, remedy)
        elif image.is_managed:
            raise GuestNotRunnable(f"loading {path}", "a library for .NET")
        base = self._place(image, fd)
        module = Module(os.path.basename(path).lower(), path, base, -(-image.size // PAGE) * PAGE, image)
        self._relocate(image, base)
        tls = image.tls()
        if tls is not None:
            module.tls_index = len(self.tls)
            self.tls.append(module)
            self._memory.set_u32(self.relocated(module, tls.index), module.tls_index)
        self._by_name[module.name] = module
        if not image.is_dll:
            self.directory = os.path.dirname(os.path.abspath(path))
            self.order.append(module)
        for wanted in image.imports():
            self._memory.set_u64(base + wanted.slot, self._import(wanted.dll, wanted.name))
        if image.is_dll:
            self.order.append(module)  # after what it needs, so that it starts after them
        self._protect(image, base)
        return module

    @staticmethod
    def relocated(module: Module, address: int) -> int:
        """An address that the image has for its preferred base, where it is now."""
        assert module.image is not None
        return address - module.image.base + module.base

    def _import(self, dll: str, name: str) -> int:
        module = self.load(dll)
        found = None if module is None else self.address_of(module, name)
        return self._missing(dll, name) if found is None else found

    def _place(self, image: pe.Image, fd: int) -> int:
        size = -(-image.size // PAGE) * PAGE
        try:
            base = self._memory.map(image.base, size, READ | WRITE)
        except OSError:
            if not image.directories[pe.RELOCATION][0]:
                found = f"its place {image.base:#x} is taken, and it has no relocations"
                raise GuestNotRunnable(f"loading {image.name}", found) from None
            base = self._memory.map(0, size, READ | WRITE)
        self._memory.write(base, image.data[: image.headers_size])
        for section in image.sections:
            if section.file_size:
                held = self._memory.load_file(base + section.address, section.file_size, fd, section.offset)
                if held < section.file_size:
                    raise image.damaged(f"section {section.name!r} has no end")
        return base

    def _relocate(self, image: pe.Image, base: int) -> None:
        delta = base - image.base
        if not delta:
            return
        for place in image.relocations():
            value = self._memory.u64(base + place) + delta
            self._memory.set_u64(base + place, value & 0xFFFF_FFFF_FFFF_FFFF)

    def _protect(self, image: pe.Image, base: int) -> None:
        region = self._regions.add(Region(base, -(-image.size // PAGE) * PAGE, Kind.IMAGE, PAGE_EXECUTE_WRITECOPY))
        region.set(base, region.end, PAGE_READONLY)
        for section in image.sections:
            start = base + section.address
            extent = -(-max(section.size, section.file_size) // PAGE) * PAGE
            if extent:
                region.set(start, min(start + extent, region.end), PROTECTIONS[section.rights])
        self._memory.protect(base, max(image.headers_size, 1), READ)
        for section in image.sections:
            extent = max(section.size, section.file_size)
            if extent:
                self._memory.protect(base + section.address, extent, section.rights)

    def _find(self, name: str) -> str:
        if self.directory:
            for entry in os.listdir(self.directory):
                if entry.lower() == name:
                    return os.path.join(self.directory, entry)
        if name in RUNTIMES:
            for directory in WINE_LIBRARIES:
                if os.path.isfile(os.path.join(directory, name)):
                    return os.path.join(directory, name)
        return ""

    def _serve(self, name: str) -> Module:
        """A library of ours has an address too, with headers that say nothing: its handle."""
        base = self._memory.map(0, 0x10000, READ | WRITE)
        header = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0"
        header += struct.pack("<HHIIIHH", pe.MACHINE_AMD64, 0, 0, 0, 0, pe.OPTIONAL_SIZE + 8 * pe.DIRECTORIES, 0x2022)
        header += struct.pack("<H", pe.PE32_PLUS).ljust(56, b"\0") + struct.pack("<II", 0x10000, PAGE)
        self._memory.write(base, header)
        self._memory.protect(base, 0x10000, READ)
        module = Module(name, "", base, 0x10000, started=True)
        self._by_name[name] = module
        self.order.append(module)
        return module
