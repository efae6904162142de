"""What can go wrong, as a user is told it: what was being done, what was found, the remedy."""

SEPARATOR = "\0"
"""Between the words of an error that is told to another process."""


class VirtusError(Exception):
    """A failure the user can act on; the command line prints it as one line, without a traceback.

    `exit_status` follows the shells: 2 wrong usage, 126 found but not runnable, 127 not found, 1 everything else.
    """

    exit_status = 1

    def __init__(self, doing: str, found: str, remedy: str = "") -> None:
        self.doing, self.found, self.remedy = doing, found, remedy
        super().__init__(f"{doing}: {found}" + (f"; {remedy}" if remedy else ""))

    def words(self) -> list[str]:
        """The error as plain text, to be told to another process (see `from_words`)."""
        return [type(self).__name__, self.doing, self.found, self.remedy]

    def packed(self) -> bytes:
        """The same as bytes, for processes of ours that have no need of JSON otherwise (see `from_packed`)."""
        return SEPARATOR.join(word.replace(SEPARATOR, "?") for word in self.words()).encode(errors="surrogateescape")


class UsageError(VirtusError):
    """The request itself makes no sense (exit status 2)."""

    exit_status = 2


class GuestNotFound(VirtusError):
    """There is no such guest (exit status 127)."""

    exit_status = 127


class GuestNotRunnable(VirtusError):
    """The guest is there and cannot be run: a directory, truncated, foreign, unreadable (exit status 126)."""

    exit_status = 126


class HostLacks(VirtusError):
    """This host does not offer what the technique needs."""


class MachineBroken(VirtusError):
    """The machine could not go on, through no act of the guest that it could have prevented."""


_KINDS: dict[str, type[VirtusError]] = {
    kind.__name__: kind for kind in (VirtusError, UsageError, GuestNotFound, GuestNotRunnable, HostLacks, MachineBroken)
}


def from_words(words: list[str]) -> VirtusError:
    """The error that another process has told of by its `words`."""
    kind, doing, found, remedy = words
    return _KINDS[kind](doing, found, remedy)


def from_packed(data: bytes) -> VirtusError:
    """The error that another process has told of by `packed`; MachineBroken for anything else."""
    words = data.decode(errors="surrogateescape").split(SEPARATOR)
    if len(words) != 4 or words[0] not in _KINDS:
        return MachineBroken("listening to a process of the machine", "it said what makes no sense")
    return from_words(words)
