"""What the user asks for: a guest and the box it is to run in."""

from collections.abc import Mapping, Sequence

from virtus.records import StrPath, dataclass, field

DEFAULT_PROCESS_LIMIT = 4096
"""Guest threads and processes at once; more fork with EAGAIN. A fork bomb ends here and not at the host."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A host directory or file shown inside the guest's root, behind every layer.

    `target` is an absolute path, or for a Windows program the letter of a drive ("D:").
    """

    source: StrPath
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """A guest and its box; every technique for Linux programs takes it as it is.

    `argv[0]` is a path inside the guest's root, or a command name looked up in the guest's PATH.
    """

    argv: Sequence[str]
    env: Mapping[str, str] | None = None  # None: the caller's environment
    cwd: str | None = None  # None: the caller's directory where the root has it, else /
    root: StrPath = "/"
    volumes: Sequence[Volume] = ()
    net: str = "none"  # or "host"; of a machine of its own, see MachineSpec
    hostname: str = "virtus"
    user: int | None = None  # None: the caller's uid
    keep: StrPath | None = None  # None: changes of the root are thrown away
    process_limit: int = DEFAULT_PROCESS_LIMIT
    extra: Mapping[str, str] = field(default_factory=dict)  # options of one technique only
