"""Declarations as in Windows' headers: read as they are meant, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.personalities.win32.table import TYPES, BadDeclaration, cut, parse, type_of


def test_a_declaration_is_read() -> None:
    result, name, parameters, variadic = parse(
        "BOOL WriteFile(HANDLE file, LPCVOID data, DWORD size, LPDWORD written, OVERLAPPED *overlapped)"
    )
    assert (result.name, result.size, result.signed, name, variadic) == ("BOOL", 4, True, "WriteFile", False)
    assert [(parameter.name, parameter.type.size, parameter.type.pointer) for parameter in parameters] == [
        ("file", 8, True), ("data", 8, True), ("size", 4, False), ("written", 8, True), ("overlapped", 8, True),
    ]  # fmt: skip


def test_none_and_more_parameters() -> None:
    assert parse("DWORD GetLastError(void)")[2:] == ((), False)
    assert parse("void *malloc(size_t size)")[0].pointer
    assert parse("int printf(const char *format, ...)")[3]
    assert parse("double floor(double x)")[0].floating


@pytest.mark.parametrize("wrong", ["", "Sleep(DWORD ms)", "void f(DWORD)", "void f(Thing x)", "void f(DWORD a", "f"])
def test_what_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(BadDeclaration):
        parse(wrong)


@given(st.integers(0, 2**64 - 1), st.sampled_from(sorted(TYPES)))
def test_arguments_are_cut_to_their_type(value: int, name: str) -> None:
    kind = type_of(name)
    if kind.size and not kind.floating:
        taken = cut(kind, value)
        assert (taken - value) % (1 << 8 * kind.size) == 0
        assert (taken < 0) <= kind.signed
        assert -(1 << 8 * kind.size - 1) <= taken < 1 << 8 * kind.size - kind.signed
