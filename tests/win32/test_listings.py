"""Directories' names: as the host has them, found whatever their case, and read again when they have changed."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.personalities.win32.characters import to_upper
from virtus.personalities.win32.listings import Listing, Listings

NAMES = st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1), unique=True)
LONG_AGO_NS = 10**18


def listings(told: list[Listing]) -> Listings:
    made = Listings()
    made.tell = told.append
    return made


@given(NAMES)
def test_every_name_is_found_in_upper_case(names: list[str]) -> None:
    listing = Listing((0, 0, 0), names, settled=True)
    assert sorted(listing.names) == sorted(names)
    assert listing.uppers == sorted(to_upper(name) for name in names) == [to_upper(name) for name in listing.names]
    for name in names:
        assert listing.has(to_upper(name)) == min(each for each in names if to_upper(each) == to_upper(name))
    assert listing.has("?" * 30) is None


def test_a_directory_is_read_again_when_its_time_is_another(tmp_path: Path) -> None:
    told: list[Listing] = []
    kept = listings(told)
    (tmp_path / "One").touch()
    os.utime(tmp_path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    first = kept.of(str(tmp_path))
    assert kept.of(str(tmp_path)) is first
    assert kept.match(str(tmp_path), "ONE") == "One"
    assert not told
    assert kept.match(str(tmp_path), "two") is None
    assert told == [first]
    (tmp_path / "Two").touch()
    assert kept.match(str(tmp_path), "two") == "Two"


def test_what_has_just_changed_is_not_kept_nor_told(tmp_path: Path) -> None:
    told: list[Listing] = []
    kept = listings(told)
    (tmp_path / "one").touch()
    first = kept.of(str(tmp_path))
    assert kept.of(str(tmp_path)) is not first
    assert kept.match(str(tmp_path), "two") is None
    assert not told


def test_what_is_no_directory_has_nothing(tmp_path: Path) -> None:
    assert Listings().match(str(tmp_path / "none"), "a") is None
    with pytest.raises(FileNotFoundError):
        Listings().of(str(tmp_path / "none"))
