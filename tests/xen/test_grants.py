"""Grant tables of both versions: what an entry allows, and what it says of its use."""

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xen.stopped import stopped_domains
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.personalities.xen.abi import DOMID_CONTROL, EBUSY, EINVAL, ESRCH, Refused
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.grants import (
    BAD_DOMAIN,
    ENTRY,
    ENTRY2,
    PERMIT_ACCESS,
    READ_ONLY,
    READING,
    SUB_PAGE,
    WRITING,
    NotGranted,
)


@pytest.fixture(params=[1, 2])
def domain(request: pytest.FixtureRequest) -> Iterator[Domain]:
    with stopped_domains() as (_, (made,), _):
        made.grants.set_version(request.param)
        yield made


def grant(domain: Domain, reference: int, pfn: int, *, flags: int = PERMIT_ACCESS, to: int = DOMID_CONTROL) -> None:
    table = domain.grants.first << FRAME_SHIFT
    frame = domain.first_frame + pfn
    if domain.grants.version == 1:
        ENTRY.pack_into(domain.memory.bytes, table + ENTRY.size * reference, flags, to, frame)
    else:
        ENTRY2.pack_into(domain.memory.bytes, table + ENTRY2.size * reference, flags, to, 100, 50, frame)


def told(domain: Domain, reference: int) -> int:
    """The flags of use, as the guest sees them."""
    if domain.grants.version == 1:
        at = (domain.grants.first << FRAME_SHIFT) + ENTRY.size * reference
    else:
        at = (domain.grants.status << FRAME_SHIFT) + 2 * reference
    flags: int = struct.unpack_from("<H", domain.memory.bytes, at)[0]
    return flags & (READING | WRITING)


def test_what_is_borrowed_is_what_could_be_claimed(domain: Domain) -> None:
    """Whatever the frame is: both refuse the same, and borrowing leaves no trace."""
    frames, first = domain.frames, domain.first_frame
    domain.tables.pin(first + 1, 1)
    domain.tables.use_writable(first + 2)
    frames.give_up(first + 6, domain.ident)
    grant(domain, 1, 1)
    grant(domain, 2, 2)
    grant(domain, 3, 3)
    grant(domain, 4, 4, flags=PERMIT_ACCESS | READ_ONLY)
    grant(domain, 5, 5, to=7)
    grant(domain, 6, 6)
    grant(domain, 7, -1)
    grant(domain, 8, frames.count - first)
    before = bytes(frames.uses), bytes(frames.references)
    answers = []
    for reference in (*range(9), 1 << 20):
        for write in (True, False):
            found = []
            for use in (domain.grants.borrow, domain.grants.claim):
                try:
                    frame = use(reference, DOMID_CONTROL, write=write)
                    found.append((frame, 0))
                    if use == domain.grants.claim:
                        domain.grants.release(reference, frame, write=write)
                except NotGranted as refusal:
                    found.append((0, refusal.status))
            assert found[0] == found[1], (reference, write)
            assert told(domain, reference % 100) == 0
            answers.append(found[0][1] == 0)
    assert answers[2:10] == [False, True, True, True, True, True, False, True]  # a table is not written
    assert not any(answers[10:])
    assert (bytes(frames.uses), bytes(frames.references)) == before


def test_a_use_is_told_until_it_ends(domain: Domain) -> None:
    grant(domain, 5, 3)
    frame = domain.grants.claim(5, DOMID_CONTROL, write=True)
    assert frame == domain.first_frame + 3
    assert told(domain, 5) == READING | WRITING
    domain.grants.release(5, frame, write=True)
    assert told(domain, 5) == 0
    frame = domain.grants.claim(5, DOMID_CONTROL, write=False)
    assert told(domain, 5) == READING
    domain.grants.release(5, frame, write=False)
    assert domain.frames.references[frame] == 1


def test_what_is_not_granted(domain: Domain) -> None:
    grant(domain, 5, 3, flags=PERMIT_ACCESS | READ_ONLY)
    grant(domain, 6, 3, to=7)
    grant(domain, 7, 3, flags=3)  # transitive
    grant(domain, 8, 1 << 30)
    for reference, write in ((5, True), (6, False), (7, False), (8, False), (9, False), (1 << 31, False)):
        with pytest.raises(NotGranted):
            domain.grants.claim(reference, DOMID_CONTROL, write=write)
    assert domain.frames.references[domain.first_frame + 3] == 1


def test_a_part_of_a_page_is_for_copies_of_that_part() -> None:
    with stopped_domains() as (_, (domain,), _):
        domain.grants.set_version(2)
        grant(domain, 5, 3, flags=PERMIT_ACCESS | SUB_PAGE)
        frame = domain.grants.claim(5, DOMID_CONTROL, write=False, part=(110, 40))
        domain.grants.release(5, frame, write=False)
        for part in ((0, PAGE), (99, 2), (140, 11)):
            with pytest.raises(NotGranted, match="part of its page"):
                domain.grants.claim(5, DOMID_CONTROL, write=False, part=part)


def test_the_version_changes_only_while_nothing_is_in_use(domain: Domain) -> None:
    other = 3 - domain.grants.version
    grant(domain, 5, 3)
    frame = domain.grants.claim(5, DOMID_CONTROL, write=False)
    with pytest.raises(Refused) as caught:
        domain.grants.set_version(other)
    assert caught.value.error == EBUSY
    domain.grants.release(5, frame, write=False)
    domain.grants.set_version(other)
    with pytest.raises(NotGranted):  # all entries are gone
        domain.grants.claim(5, DOMID_CONTROL, write=False)
    with pytest.raises(Refused) as caught:
        domain.grants.set_version(3)
    assert caught.value.error == EINVAL


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 2), st.binary(min_size=64, max_size=64), st.lists(st.tuples(st.integers(0, 9), st.booleans())))
def test_any_entries_are_uses_that_end_or_refusals(version: int, entries: bytes, uses: list[tuple[int, bool]]) -> None:
    with stopped_domains() as (_, (domain,), _):
        domain.grants.set_version(version)
        start = domain.grants.first << FRAME_SHIFT
        domain.memory.bytes[start : start + len(entries)] = entries
        before = domain.frames.save()
        held = []
        for reference, write in uses:
            try:
                held.append((reference, domain.grants.claim(reference, DOMID_CONTROL, write=write), write))
            except NotGranted:
                pass
        for reference, frame, write in held:
            domain.grants.release(reference, frame, write=write)
        after = domain.frames.save()
        assert {name: after[name] for name in ("owner", "uses", "references")} == {
            name: before[name] for name in ("owner", "uses", "references")
        }


def test_a_domain_that_was_started_elsewhere_is_refused_by_name() -> None:
    """Each start makes a machine of its own: what another one grants or opens cannot be reached."""
    with stopped_domains() as (_, (domain,), notes):
        with pytest.raises(Refused) as refusal:
            domain.events.bind_interdomain(2, 1)
        assert refusal.value.error == ESRCH
        with pytest.raises(NotGranted) as not_granted:
            domain.grants.map(0, 2, 8, 2)
        assert not_granted.value.status == BAD_DOMAIN
        assert "domain 2 is not in this machine" in str(not_granted.value)
        assert notes == ["bind_interdomain refused: domain 2 is not in this machine"]
