"""Messages between the translator and its background process arrive as they were sent."""

from hypothesis import given
from hypothesis import strategies as st

from tests.translator.test_cache import UNITS
from tests.translator.test_quick_image import IMAGES
from virtus.vcpus.translator.llvm.request import Optimised, QuickCode, Request, Result, Urge, decoded, encoded
from virtus.vcpus.translator.quick_image import QuickImage

REQUESTS = st.builds(
    Request,
    st.integers(0, 2**31),
    st.text(max_size=8),
    st.integers(0, 2**38),
    st.lists(st.tuples(st.integers(0, 2**38), st.binary(max_size=20)), max_size=3).map(tuple),
    st.lists(st.tuples(st.integers(0, 2**38), st.tuples(st.integers(0, 2**38))), max_size=3).map(tuple),
    st.booleans(),
    st.text(max_size=8),
    st.booleans(),
)


@given(REQUESTS)
def test_a_request(request: Request) -> None:
    assert decoded(encoded(request)) == request


@given(st.integers(0, 2**31), st.one_of(st.none(), UNITS), st.text(max_size=9), st.floats(0, 10), st.integers(0, 99))
def test_a_result(number: int, made: Optimised | None, error: str, seconds: float, instructions: int) -> None:
    result = Result(number, made, error, seconds, instructions)
    assert decoded(encoded(result)) == result
    assert decoded(encoded(Urge(number))) == Urge(number)


@given(st.text(max_size=8), IMAGES)
def test_quick_code(name: str, image: QuickImage) -> None:
    found = decoded(encoded(QuickCode(name, image)))
    assert isinstance(found, QuickCode)
    assert (found.image, found.code.pack()) == (name, image.pack())
