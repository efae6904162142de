"""What these tests share: the small guest, where this host can run it."""

from collections.abc import Iterator

import pytest

from tests.xen.mini_guest import MiniGuest, mini_guest
from virtus.techniques.paravirt import TECHNIQUE


@pytest.fixture(scope="session")
def ring3() -> None:
    """Skip where no guest's kernel can run at ring 3."""
    available = TECHNIQUE.probe()
    if not available.works:
        pytest.skip(f"no paravirtual guest here: {available.reason}")


@pytest.fixture
def guest(ring3: None) -> Iterator[MiniGuest]:
    """A domain that does what the test says."""
    with mini_guest() as made:
        yield made
