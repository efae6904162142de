"""Grant tables: how a domain lets another use single frames of its own, until it takes the right back.

The table lies in frames of the hypervisor's that the domain fills; every use reads its entry anew and checks it, and
holds the frame (with the flags that tell the domain so) until it ends. In version 1 these flags stand in the entry; in
version 2, whose entries have room for larger frame numbers and for parts of pages, in an array of their own.
Source: xen/include/public/grant_table.h.
"""

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory
from virtus.memory.x86_paging import ACCESSED, DIRTY, NO_EXECUTE, PRESENT, USER, WRITABLE
from virtus.personalities.xen.abi import DOMID_SELF, EBUSY, EINVAL, Refused
from virtus.personalities.xen.frames import Kind
from virtus.personalities.xen.table import call

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

FRAMES: Final = 32
ENTRY: Final = struct.Struct("<HHI")  # struct grant_entry_v1
ENTRY2: Final = struct.Struct("<HHHHQ")  # struct grant_entry_v2: flags, domain, offset, length, frame
STATUS_FRAMES: Final = FRAMES * (PAGE // ENTRY2.size) * 2 // PAGE  # two bytes an entry
SUB_PAGE: Final = 1 << 8  # GTF_sub_page
PERMIT_ACCESS, TYPE_MASK, READ_ONLY, READING, WRITING = 1, 3, 4, 8, 16  # GTF_*
OKAY, GENERAL_ERROR, BAD_DOMAIN, BAD_REFERENCE, BAD_HANDLE, BAD_ADDRESS = 0, -1, -2, -3, -4, -5  # GNTST_*
PERMISSION_DENIED, BAD_COPY = -8, -10
HOST_MAP, MAP_READ_ONLY, CONTAINS_PTE = 2, 4, 16  # GNTMAP_*
GUEST_BITS: Final = 16  # _GNTMAP_guest_avail0: three bits of the guest's own for the entry
MAP: Final = struct.Struct("<QIIHhIQ")  # struct gnttab_map_grant_ref
UNMAP: Final = struct.Struct("<QQIh2x")
COPY: Final = struct.Struct("<QHH4xQHH4xHHh2x")  # struct gnttab_copy: source, destination, length, flags, status
COPY_SOURCE_GRANT, COPY_DESTINATION_GRANT = 1, 2
MOST_OPERATIONS: Final = 4096
WHOLE: Final = (0, PAGE)


class NotGranted(Exception):
    """A grant does not allow the use; `status` is the GNTST number."""

    def __init__(self, status: int, why: str) -> None:
        self.status = status
        super().__init__(why)


class GrantTable:
    """What one domain grants. `first` is the first of FRAMES frames of the hypervisor's, shared with the domain, and
    `status` that of STATUS_FRAMES."""

    def __init__(self, domain: "Domain", memory: GuestMemory, first: int, status: int) -> None:
        self._domain, self._memory, self.first, self.status = domain, memory, first, status
        self.version = 1
        self.shown = 4  # frames that the domain may use; it can ask for more
        self._maps: dict[int, tuple[Domain, int, int, bool]] = {}  # handle: granter, reference, frame, writable
        self._next_handle = 0

    def save(self) -> list[int]:
        """The table's own size, and how far handles were given out; its entries are in memory. Raises ValueError while
        other domains' frames are mapped."""
        if self._maps:
            raise ValueError("it maps frames of other domains")
        return [self.shown, self._next_handle, self.version]

    def load(self, saved: list[int]) -> None:
        """What `save` gave."""
        self.shown, self._next_handle, self.version = saved

    def set_version(self, version: int) -> None:
        """Which kind of entries the table has from now on; all are forgotten. Raises Refused while any is in use."""
        if version not in (1, 2):
            raise Refused(EINVAL, f"grant tables of version {version}")
        if version == self.version:
            return
        if any(self._flags_in_use()):
            raise Refused(EBUSY, "grants are in use")
        for start, count in ((self.first, FRAMES), (self.status, STATUS_FRAMES)):
            self._memory.bytes[start << FRAME_SHIFT : start + count << FRAME_SHIFT] = bytes(count * PAGE)
        self.version = version

    def _flags_in_use(self) -> Iterator[int]:
        for reference in range(self.shown * self._per_frame):
            yield self._memory.bytes[self._flags_at(reference)] & (READING | WRITING)

    @property
    def _per_frame(self) -> int:
        return PAGE // (ENTRY if self.version == 1 else ENTRY2).size

    def _flags_at(self, reference: int) -> int:
        """Where the byte is that tells the domain of a grant's use."""
        if self.version == 1:
            return (self.first << FRAME_SHIFT) + ENTRY.size * reference
        return (self.status << FRAME_SHIFT) + 2 * reference

    def _entry(self, reference: int) -> tuple[int, int, int, int, int]:
        """Flags, grantee, frame, and which bytes of it: offset and length."""
        table = self.first << FRAME_SHIFT
        if self.version == 1:
            return (*ENTRY.unpack_from(self._memory.bytes, table + ENTRY.size * reference), 0, PAGE)
        flags, grantee, offset, length, frame = ENTRY2.unpack_from(self._memory.bytes, table + ENTRY2.size * reference)
        if not flags & SUB_PAGE:
            offset, length = 0, PAGE
        return flags, grantee, frame, offset, length

    def claim(self, reference: int, user: int, *, write: bool, part: tuple[int, int] = WHOLE) -> int:
        """The frame of a grant to the domain `user`, held until `release`; raises NotGranted.

        `part` are the bytes of the page, by offset and length, that are to be used.
        """
        flags, frame = self._granted(reference, user, write, part)
        try:
            if write:
                self._domain.tables.use_writable(frame)
            else:
                self._domain.frames.refer(frame, self._domain.ident)
        except Refused as refusal:
            raise NotGranted(GENERAL_ERROR, f"grant {reference}: {refusal}") from refusal
        at = self._flags_at(reference)
        told = flags & 0xFF if self.version == 1 else self._memory.bytes[at]
        self._memory.bytes[at] = told | READING | (WRITING if write else 0)
        return frame

    def borrow(self, reference: int, user: int, *, write: bool) -> int:
        """The frame of a grant, for a use that ends before any processor of the domain goes on; raises NotGranted.

        So nobody sees that it is in use, and it is enough to look whether it may be.
        """
        frame, frames = self._granted(reference, user, write, WHOLE)[1], self._domain.frames
        if frame >= frames.count or frames.owner[frame] != self._domain.ident or frames.kind[frame] != Kind.WRITABLE:
            self.release(reference, self.claim(reference, user, write=write), write=write)
        elif write:
            self._domain.tables.stored_into(frame)
        return frame

    def _granted(self, reference: int, user: int, write: bool, part: tuple[int, int]) -> tuple[int, int]:
        """Flags and frame of a grant that allows this; raises NotGranted."""
        if reference >= self.shown * self._per_frame:
            raise NotGranted(BAD_REFERENCE, f"grant {reference} is beyond the table")
        flags, grantee, frame, offset, length = self._entry(reference)
        if flags & TYPE_MASK != PERMIT_ACCESS or grantee != user:
            raise NotGranted(BAD_REFERENCE, f"grant {reference} is not for domain {user}")
        if write and flags & READ_ONLY:
            raise NotGranted(PERMISSION_DENIED, f"grant {reference} is read-only")
        if part[0] < offset or part[0] + part[1] > offset + length:
            raise NotGranted(PERMISSION_DENIED, f"grant {reference} is for a part of its page")
        return flags, frame

    def release(self, reference: int, frame: int, *, write: bool, last: bool = True) -> None:
        """End what `claim` began; `last` when nobody else holds this grant."""
        if write:
            self._domain.tables.stored_into(frame)
            self._domain.tables.end_writable(frame)
        else:
            self._domain.frames.release(frame)
        if last:
            self._memory.bytes[self._flags_at(reference)] &= ~(READING | WRITING) & 0xFF

    # as a user of other domains' grants

    def map(self, host_address: int, flags: int, reference: int, granter: int) -> tuple[int, int]:
        """Map another domain's frame into this domain's tables: the handle and the machine address. NotGranted."""
        domain = self._domain
        other = domain.peers.get(granter)
        if other is None or other is domain:
            raise NotGranted(BAD_DOMAIN, f"domain {granter} is not in this machine")
        if not flags & HOST_MAP:
            raise NotGranted(GENERAL_ERROR, "no device maps memory here")
        write = not flags & MAP_READ_ONLY
        frame = other.grants.claim(reference, domain.ident, write=write)
        try:
            at = host_address if flags & CONTAINS_PTE else domain.access.entry_address(host_address)
            entry = frame << FRAME_SHIFT | PRESENT | USER | ACCESSED | DIRTY | NO_EXECUTE
            entry |= (WRITABLE if write else 0) | (flags >> GUEST_BITS & 7) << 9
            domain.tables.map_granted(at, entry)
        except Refused as refusal:
            other.grants.release(reference, frame, write=write, last=not self._held(other, reference))
            raise NotGranted(BAD_ADDRESS, str(refusal)) from refusal
        self._next_handle += 1
        self._maps[self._next_handle] = (other, reference, frame, write)
        return self._next_handle, frame << FRAME_SHIFT

    def unmap(self, host_address: int, handle: int) -> None:
        """End a mapping; raises NotGranted."""
        if handle not in self._maps:
            raise NotGranted(BAD_HANDLE, f"no mapping {handle}")
        other, reference, frame, write = self._maps[handle]
        domain = self._domain
        for at in self._entries_for(host_address):
            if at not in domain.tables.granted:
                continue
            entry = domain.memory.words[at >> 3]
            if entry >> FRAME_SHIFT & 0xFFFFFFFFFF == frame and bool(entry & WRITABLE) == write:
                domain.tables.unmap_granted(at)
                break
        else:
            raise NotGranted(BAD_ADDRESS, f"no granted mapping at {host_address:#x}")
        del self._maps[handle]
        other.grants.release(reference, frame, write=write, last=not self._held(other, reference))

    def _entries_for(self, host_address: int) -> list[int]:
        """A mapping is named by an address, or by its entry's machine address."""
        entries = [host_address]
        try:
            entries.append(self._domain.access.entry_address(host_address))
        except Refused:
            pass  # then it can only be the entry's
        return entries

    def _held(self, other: "Domain", reference: int) -> bool:
        return any(held[0] is other and held[1] == reference for held in self._maps.values())

    def end(self) -> None:
        """The domain is gone: give back every frame of others that it holds."""
        for other, reference, frame, write in self._maps.values():
            other.grants.release(reference, frame, write=write)
        self._maps.clear()


def _status(handler: str, domain: "Domain", refusal: NotGranted) -> int:
    domain.note(f"{handler} refused: {refusal}")
    return refusal.status


@call(
    "grant_table_op", note="map, unmap, setup, copy, query, versions, status frames; no transfer, no transitive grants"
)
def grant_table_op(domain: "Domain", what: int, at: int, count: int) -> int:
    """The operations on the domain's own table, and on other domains' grants."""
    if count > MOST_OPERATIONS:
        raise Refused(EINVAL)
    handler = _OPERATIONS.get(what)
    if handler is None:
        domain.note(f"grant_table_op: operation {what} is not there")
        raise Refused(EINVAL)
    return handler(domain, at, count)


def _map(domain: "Domain", at: int, count: int) -> int:
    for here in range(at, at + MAP.size * count, MAP.size):
        address, flags, reference, granter, _, _, _ = MAP.unpack(domain.access.read(here, MAP.size))
        handle, machine, status = 0, 0, OKAY
        try:
            handle, machine = domain.grants.map(address, flags, reference, granter)
        except NotGranted as refusal:
            status = _status("map_grant_ref", domain, refusal)
        domain.access.write(here, MAP.pack(address, flags, reference, granter, status, handle, machine))
    return 0


def _unmap(domain: "Domain", at: int, count: int) -> int:
    for here in range(at, at + UNMAP.size * count, UNMAP.size):
        address, bus, handle, _ = UNMAP.unpack(domain.access.read(here, UNMAP.size))
        status = OKAY
        try:
            domain.grants.unmap(address, handle)
        except NotGranted as refusal:
            status = _status("unmap_grant_ref", domain, refusal)
        domain.access.write(here, UNMAP.pack(address, bus, handle, status))
    return 0


def _setup(domain: "Domain", at: int, count: int) -> int:
    named, frames, _, list_at = struct.unpack("<HxxIh6xQ", domain.access.read(at, 24))
    status = OKAY
    if named not in (DOMID_SELF, domain.ident):
        status = PERMISSION_DENIED
    elif frames > FRAMES:
        status = GENERAL_ERROR
    else:
        domain.grants.shown = max(domain.grants.shown, frames)
        domain.access.write(
            list_at, struct.pack(f"<{frames}Q", *range(domain.grants.first, domain.grants.first + frames))
        )
    domain.access.write(at + 8, struct.pack("<h", status))
    return 0


def _query(domain: "Domain", at: int, count: int) -> int:
    domain.access.write(at + 4, struct.pack("<IIh", domain.grants.shown, FRAMES, OKAY))
    return 0


def _set_version(domain: "Domain", at: int, count: int) -> int:
    try:
        domain.grants.set_version(domain.access.read_dword(at))
    finally:
        domain.access.write_dword(at, domain.grants.version)
    return 0


def _get_version(domain: "Domain", at: int, count: int) -> int:
    domain.access.write_dword(at + 4, domain.grants.version)
    return 0


def _get_status_frames(domain: "Domain", at: int, count: int) -> int:
    frames, named, _, list_at = struct.unpack("<IHhQ", domain.access.read(at, 16))
    status = OKAY
    if named not in (DOMID_SELF, domain.ident):
        status = PERMISSION_DENIED
    elif domain.grants.version != 2 or frames > STATUS_FRAMES:
        status = GENERAL_ERROR
    else:
        first = domain.grants.status
        domain.access.write(list_at, struct.pack(f"<{frames}Q", *range(first, first + frames)))
    domain.access.write(at + 6, struct.pack("<h", status))
    return 0


def _copy(domain: "Domain", at: int, count: int) -> int:
    for here in range(at, at + COPY.size * count, COPY.size):
        fields = COPY.unpack(domain.access.read(here, COPY.size))
        status = OKAY
        try:
            _copy_one(domain, *fields[:-1])
        except NotGranted as refusal:
            status = _status("copy", domain, refusal)
        domain.access.write(here, COPY.pack(*fields[:-1], status))
    return 0


def _copy_one(
    domain: "Domain", source: int, source_domain: int, source_at: int, target: int, target_domain: int, target_at: int,
    length: int, flags: int,
) -> None:  # fmt: skip
    if source_at + length > PAGE or target_at + length > PAGE:
        raise NotGranted(BAD_COPY, "a copy beyond its page")
    from_grant, to_grant = bool(flags & COPY_SOURCE_GRANT), bool(flags & COPY_DESTINATION_GRANT)
    giver, taker = _party(domain, source_domain, from_grant), _party(domain, target_domain, to_grant)
    source, target = (source & 0xFFFFFFFF if from_grant else source), (target & 0xFFFFFFFF if to_grant else target)
    source_part, target_part = (source_at, length), (target_at, length)
    if from_grant:
        read = giver.grants.claim(source, domain.ident, write=False, part=source_part)
    else:
        read = _own(domain, source, write=False)
    try:
        if to_grant:
            write = taker.grants.claim(target, domain.ident, write=True, part=target_part)
        else:
            write = _own(domain, target, write=True)
        data = bytes(domain.memory.frame(read)[source_at : source_at + length])
        domain.memory.frame(write)[target_at : target_at + length] = data
        taker.tables.stored_into(write)
        if to_grant:
            taker.grants.release(target, write, write=True)
        else:
            domain.tables.end_writable(write)
    finally:
        if from_grant:
            giver.grants.release(source, read, write=False)
        else:
            domain.frames.release(read)


def _party(domain: "Domain", named: int, granted: bool) -> "Domain":
    if named in (DOMID_SELF, domain.ident):
        return domain
    other = domain.peers.get(named)
    if other is None or not granted:
        raise NotGranted(BAD_DOMAIN if other is None else PERMISSION_DENIED, f"domain {named}")
    return other


def _own(domain: "Domain", frame: int, *, write: bool) -> int:
    try:
        if write:
            domain.tables.use_writable(frame)
        else:
            domain.frames.refer(frame, domain.ident)
    except Refused as refusal:
        raise NotGranted(GENERAL_ERROR, str(refusal)) from refusal
    return frame


_OPERATIONS = {
    0: _map,
    1: _unmap,
    2: _setup,
    5: _copy,
    6: _query,
    8: _set_version,
    9: _get_status_frames,
    10: _get_version,
}
