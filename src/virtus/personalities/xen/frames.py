"""Who owns each machine frame, how it is used, and how often: what direct paging is safe by.

A guest sees its page tables and makes them, but only the hypervisor stores into them. A frame has at a time one *type*:
a page table of a level, segment descriptors, or writable memory; while it is used as one it cannot become another. So
no page table is ever mapped writable. A frame without *references* is nobody's; only its owner may take references.

Source: xen.git, xen/arch/x86/mm.c ("A description of the x86 page table API"); Barham et al., SOSP 2003, 3.3.3.
"""

from array import array
from collections.abc import Callable
from enum import IntEnum

from virtus.personalities.xen.abi import DOMID_NONE, EBUSY, EINVAL, ENOMEM, EPERM, Refused


class Kind(IntEnum):
    """What a frame is used as. The tables' values are their levels."""

    NONE = 0
    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4
    DESCRIPTORS = 5
    WRITABLE = 6


Validate = Callable[[int, int], None]


class FrameTable:
    """One row per machine frame. `kind` means something while `uses` is not 0."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.owner = array("H", [DOMID_NONE]) * count
        self.kind = bytearray(count)
        self.uses = array("I", [0]) * count
        self.references = array("I", [0]) * count
        self._free: list[int] = []

    def save(self) -> dict[str, str]:
        """Everything, as text."""
        rows = {"owner": self.owner.tobytes(), "kind": bytes(self.kind), "uses": self.uses.tobytes()}
        rows["references"], rows["free"] = self.references.tobytes(), array("Q", self._free).tobytes()
        return {name: row.hex() for name, row in rows.items()}

    def load(self, saved: dict[str, str]) -> None:
        """What `save` gave, of a machine of the same size; raises ValueError for another."""
        rows = {name: bytes.fromhex(row) for name, row in saved.items()}
        if [len(rows[name]) for name in ("owner", "kind", "uses", "references")] != [
            self.count * size for size in (2, 1, 4, 4)
        ]:
            raise ValueError("a machine of another size")
        self.owner, self.kind = array("H", rows["owner"]), bytearray(rows["kind"])
        self.uses, self.references = array("I", rows["uses"]), array("I", rows["references"])
        self._free = list(array("Q", rows["free"]))

    def give(self, first: int, count: int, domain: int) -> None:
        """Make free frames a domain's; its allocation is a reference of its own."""
        for frame in range(first, first + count):
            if self.references[frame]:
                raise ValueError(f"frame {frame:#x} is not free")
            self.owner[frame] = domain
            self.references[frame] = 1

    def share(self, frame: int, domain: int) -> None:
        """Let a domain map a frame of the hypervisor's for good: writable, and never anything else."""
        self.owner[frame] = domain
        self.references[frame] = 2
        self.kind[frame], self.uses[frame] = Kind.WRITABLE, 1

    def take_free(self, domain: int) -> int:
        """A frame that was released earlier, now the domain's; raises Refused(ENOMEM)."""
        if not self._free:
            raise Refused(ENOMEM, "no free frame")
        frame = self._free.pop()
        self.give(frame, 1, domain)
        return frame

    def give_up(self, frame: int, domain: int) -> None:
        """The domain ends its own allocation; raises Refused while the frame is still used."""
        self.check(frame, domain)
        if self.references[frame] != 1 or self.uses[frame]:
            raise Refused(EBUSY, f"frame {frame:#x} is in use")
        self.release(frame)

    def check(self, frame: int, domain: int) -> None:
        """Raise Refused unless the frame exists and is the domain's."""
        if frame >= self.count:
            raise Refused(EINVAL, f"no frame {frame:#x}")
        if self.owner[frame] != domain:
            raise Refused(EPERM, f"frame {frame:#x} belongs to another")

    def refer(self, frame: int, domain: int) -> None:
        """Take a reference for the frame's owner; raises Refused for anybody else."""
        self.check(frame, domain)
        self.references[frame] += 1

    def release(self, frame: int) -> None:
        """Give a reference back; with the last one the frame is free."""
        self.references[frame] -= 1
        if not self.references[frame]:
            self.owner[frame] = DOMID_NONE
            self._free.append(frame)

    def use(self, frame: int, kind: int, validate: Validate | None = None) -> None:
        """Use the frame as `kind` once more. The first use of a table or of descriptors calls `validate(frame, kind)`,
        which refuses by raising; raises Refused while the frame is used as something else."""
        uses = self.uses[frame]
        if uses:
            if self.kind[frame] != kind:
                raise Refused(
                    EBUSY, f"frame {frame:#x} is in use as {Kind(self.kind[frame]).name}, not {Kind(kind).name}"
                )
            self.uses[frame] = uses + 1
            return
        self.uses[frame] = 1
        before, self.kind[frame] = self.kind[frame], kind
        if validate is not None:
            try:
                validate(frame, before)
            except Refused:
                self.uses[frame] = 0
                self.kind[frame] = before
                raise

    def end_use(self, frame: int) -> bool:
        """One use less; whether it was the last."""
        self.uses[frame] -= 1
        return not self.uses[frame]
