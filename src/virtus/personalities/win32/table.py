"""The one table of Windows' functions: each is declared as in Microsoft's headers, and once.

Everything that must know a function's types is made from the declaration: callbacks for a processor that runs the
program itself, marshalling for one that is emulated, traces, and the list of what is supported::

    @api("HANDLE CreateFileW(LPCWSTR name, DWORD access, DWORD share, LPVOID security, DWORD disposition,"
         " DWORD flags, HANDLE template)", "kernel32", "kernelbase")
    def create_file_w(thread: Thread, name: int, access: int, share: int, security: int, disposition: int,
                      flags: int, template: int) -> int:

An implementation gets the calling thread, and each argument as an int of the declared width and sign: the upper half of
a register that carries 32 bits is garbage by convention, and is cut off. Pointers are guest addresses; the guest's
memory is read and written through `thread.memory` alone. A function of floating point gets and gives floats. What it
returns is converted by the declared result; None is 0.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, TypeVar

from virtus.records import dataclass

Implementation = TypeVar("Implementation", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Type:
    """How a value of a C type travels: `size` in bytes (0: void), whether it is signed, whether it is floating."""

    name: str
    size: int
    signed: bool = False
    floating: bool = False
    pointer: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function."""

    name: str
    type: Type


class Function:
    """A row of the table. `note` says what is weaker than Windows', "" for nothing.

    The declaration is parsed when somebody asks for its types: a program starts with hundreds of rows and calls few.
    """

    __slots__ = ("_parsed", "declaration", "dlls", "implementation", "name", "note")

    def __init__(
        self, name: str, declaration: str, dlls: tuple[str, ...], implementation: Callable[..., Any], note: str
    ) -> None:
        self.name, self.dlls, self.implementation, self.note = name, dlls, implementation, note
        self.declaration = declaration
        self._parsed: tuple[Type, tuple[Parameter, ...], bool] | None = None

    def _types(self) -> "tuple[Type, tuple[Parameter, ...], bool]":
        if self._parsed is None:
            result, name, parameters, variadic = parse(self.declaration)
            if name != self.name:
                raise BadDeclaration(f"not a declaration: {self.declaration!r}")
            self._parsed = result, parameters, variadic
        return self._parsed

    @property
    def result(self) -> Type:
        """What it returns; raises BadDeclaration, as the next two do."""
        return self._types()[0]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """In their order."""
        return self._types()[1]

    @property
    def variadic(self) -> bool:
        """Whether more may follow."""
        return self._types()[2]


def _types(size: int, words: str, **how: bool) -> dict[str, Type]:
    return {word: Type(word, size, **how) for word in words.split()}


TYPES: Final[dict[str, Type]] = {
    "void": Type("void", 0),
    **_types(1, "BYTE UCHAR BOOLEAN"),
    **_types(1, "CHAR char", signed=True),
    **_types(2, "WORD USHORT WCHAR ATOM LANGID"),
    **_types(2, "SHORT", signed=True),
    **_types(4, "DWORD UINT ULONG ACCESS_MASK LCID REGSAM COLORREF LCTYPE"),
    **_types(4, "int LONG BOOL NTSTATUS HRESULT LSTATUS INT", signed=True),
    **_types(8, "DWORD64 ULONGLONG DWORDLONG ULONG64 SIZE_T ULONG_PTR DWORD_PTR UINT_PTR size_t WPARAM SOCKET COORD"),
    **_types(8, "LONGLONG LONG64 LONG_PTR INT_PTR SSIZE_T LARGE_INTEGER LPARAM LRESULT", signed=True),
    **_types(8, "HANDLE HMODULE HINSTANCE HLOCAL HGLOBAL HRSRC HWND HKEY FARPROC HCRYPTPROV BCRYPT_ALG_HANDLE HPCON",
             pointer=True),
    "double": Type("double", 8, floating=True),
    "float": Type("float", 4, floating=True),
}  # fmt: skip
"""Scalar types on 64-bit Windows, where long is of 32 bits (Microsoft: Windows Data Types). COORD travels in a
register, as all structures of 8 bytes do, but its upper half is none of it: implementations take 32 bits."""
POINTER_PREFIXES: Final = ("LP", "P", "H")

FUNCTIONS: Final[dict[str, Function]] = {}
"""By name. No two DLLs of those served have different functions of one name."""


class BadDeclaration(ValueError):
    """A declaration in our source that is none, or a function declared twice."""


@cache
def type_of(word: str) -> Type:
    """A type by its name in C; raises BadDeclaration."""
    bare = " ".join(part for part in word.replace("*", " * ").split() if part != "const").replace(" *", "*")
    if bare in TYPES:
        return TYPES[bare]
    stem = bare.rstrip("*")
    named = stem.startswith(POINTER_PREFIXES) and stem == stem.upper() and len(stem) > 1
    if stem.isidentifier() and (named or stem != bare):
        return Type(bare, 8, pointer=True)
    raise BadDeclaration(f"unknown type {word!r}")


def _split(words: str, declaration: str) -> tuple[Type, str]:
    """A type and the name behind it."""
    parts = words.replace("*", " * ").split()
    if len(parts) < 2 or not parts[-1].isidentifier():
        raise BadDeclaration(f"neither a type nor a name: {words!r} in {declaration!r}")
    return type_of(" ".join(parts[:-1])), parts[-1]


def parse(declaration: str) -> tuple[Type, str, tuple[Parameter, ...], bool]:
    """Result, name, parameters and whether more follow; raises BadDeclaration."""
    head, opened, rest = declaration.partition("(")
    inside, closed, behind = rest.partition(")")
    if not opened or not closed or behind.strip() or "(" in inside:
        raise BadDeclaration(f"not a declaration: {declaration!r}")
    result, name = _split(head, declaration)
    words = [word.strip() for word in inside.split(",")]
    if words in (["void"], [""]):
        words = []
    variadic = bool(words) and words[-1] == "..."
    found = [_split(word, declaration) for word in (words[:-1] if variadic else words)]
    return result, name, tuple(Parameter(label, type) for type, label in found), variadic


def api(declaration: str, *dlls: str, note: str = "") -> Callable[[Implementation], Implementation]:
    """Declare a function and register its implementation; raises BadDeclaration for a second one of its name.

    `dlls` are without ".dll", in lower case. A variadic function's implementation gets, last, a callable that gives the
    next 64-bit argument.
    """
    name = declaration.partition("(")[0].split()[-1].lstrip("*")
    if name in FUNCTIONS:
        raise BadDeclaration(f"{name} is declared twice")
    if not dlls:
        raise BadDeclaration(f"{name} is in no DLL")

    def register(implementation: Implementation) -> Implementation:
        FUNCTIONS[name] = Function(name, declaration, dlls, implementation, note)
        return implementation

    return register


def exports(dll: str) -> Iterator[Function]:
    """The functions of a DLL, by its name without ".dll"."""
    return (function for function in FUNCTIONS.values() if dll in function.dlls)


def cut(type: Type, value: int) -> int:
    """An integer argument as its type has it: cut to its width, with its sign."""
    bits = 8 * type.size
    value &= (1 << bits) - 1
    return value - (1 << bits) if type.signed and value >> (bits - 1) else value
