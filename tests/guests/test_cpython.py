"""CPython's own tests have the same outcome inside each technique, but for what docs/cpython-tests.md says."""

import sys

import pytest

from tests import guest_runs
from tests.guest_runs import TECHNIQUES
from tests.guests import cpython

QUICK = ("test_fcntl", "test_mmap", "test_pathlib", "test_select", "test_shutil", "test_tempfile")
LONG = (
    "test_os", "test_posix", "test_resource", "test_signal", "test_socket", "test_subprocess", "test_threading",
    "test_time",
)  # fmt: skip


@pytest.fixture(scope="module")
def suite() -> None:
    if not cpython.has_suite():
        package = f"libpython3.{sys.version_info.minor}-testsuite"
        pytest.skip(f"{cpython.interpreter()} has no test suite; on Debian: apt-get install {package}")


def compare(module: str, technique: str) -> None:
    guest_runs.need(technique)
    assert cpython.unexplained(module, technique) == {}


@pytest.mark.slow
@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("module", QUICK)
def test_quick_modules(suite: None, module: str, technique: str) -> None:
    compare(module, technique)


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(2 * cpython.TIMEOUT + 60)  # natively, and as a guest
@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("module", LONG)
def test_long_modules(suite: None, module: str, technique: str) -> None:
    compare(module, technique)


REPORT = """<testsuites><testsuite>
<testcase name="a" result="completed"/><testcase name="b"><skipped>x</skipped></testcase>
<testcase name="c"><failure>x</failure></testcase><testcase name="d"><error>x</error></testcase>
</testsuite></testsuites>"""


def test_reports_are_understood() -> None:
    assert cpython.parse(REPORT) == {"a": "completed", "b": "skipped", "c": "failure", "d": "error"}


def test_differences_are_found_in_both_directions() -> None:
    assert cpython.differences({"a": "completed", "b": "skipped"}, {"b": "completed", "c": "error"}) == {
        "a": ("completed", "absent"),
        "b": ("skipped", "completed"),
        "c": ("absent", "error"),
    }


def test_known_differences_are_read_for_their_technique() -> None:
    assert all(pattern.startswith("test.") for technique in TECHNIQUES for pattern in cpython.known(technique))
