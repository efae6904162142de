"""Which directory of the host is covered while a guest's root is put together."""

import os

import pytest

from virtus.errors import HostLacks
from virtus.machine import layers


@pytest.fixture(autouse=True)
def every_point_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: path in ("/mnt", "/media", "/srv"))


def test_the_first_one_when_nothing_is_in_use() -> None:
    assert layers.scratch_point(["/"]) == "/mnt"


def test_not_where_the_guest_s_root_lies() -> None:
    assert layers.scratch_point(["/mnt/guest"]) == "/media"


def test_rather_not_where_the_host_has_something_mounted() -> None:
    assert layers.scratch_point(["/"], ["/", "/mnt/disk", "/media"]) == "/srv"


def test_but_there_as_well_when_nothing_else_is_left() -> None:
    assert layers.scratch_point(["/"], ["/mnt", "/media", "/srv"]) == "/mnt"


def test_with_nowhere_left_it_says_what_to_do() -> None:
    with pytest.raises(HostLacks, match="no directory is free"):
        layers.scratch_point(["/mnt/a", "/media/b", "/srv/c"])
