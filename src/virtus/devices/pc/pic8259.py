"""The two interrupt controllers of a PC, cascaded (Intel 8259A data sheet; ELCR: 82371SB PIIX3, 2.5.7)."""

from typing import Final

ICW1, ICW1_WORD4, ICW1_SINGLE = 0x10, 1, 2
OCW3, OCW3_POLL, OCW3_READ, OCW3_SPECIAL_MASK = 0x08, 0x04, 0x02, 0x40
ICW4_AUTO_EOI, ICW4_NESTED = 0x02, 0x10
CASCADE: Final = 2
SPURIOUS: Final = 7
NONE: Final = 8
"""As a priority: lower than all."""


class Pic8259:
    """One controller with eight lines; offset 0 is the command port, 1 the data port."""

    def __init__(self, *, master: bool) -> None:
        self._master = master
        self._levels = self.requests = self.in_service = self.mask = 0
        self.edge_level = 0
        """By line, whether its level counts and not its edge."""
        self.base = 0
        self._lowest = 0
        self._step = 0
        self._word4 = self._single = self._auto_eoi = self._nested = False
        self._rotate = self._special_mask = self._read_service = self._poll = False

    def set_line(self, number: int, level: bool) -> None:
        """The wire of a line is high or low."""
        bit = 1 << number
        if level:
            if self.edge_level & bit or not self._levels & bit:
                self.requests |= bit
            self._levels |= bit
        else:
            if self.edge_level & bit:
                self.requests &= ~bit
            self._levels &= ~bit

    def _priority(self, lines: int) -> int:
        for priority in range(NONE):
            if lines >> (priority + self._lowest & 7) & 1:
                return priority
        return NONE

    def highest(self) -> int:
        """The line that asks for the processor, or -1."""
        wanted = self._priority(self.requests & ~self.mask)
        if wanted == NONE:
            return -1
        served = self.in_service
        if self._special_mask:
            served &= ~self.mask
        if self._nested and self._master:
            served &= ~(1 << CASCADE)
        return wanted + self._lowest & 7 if wanted < self._priority(served) else -1

    @property
    def settled(self) -> bool:
        """Whether the next write to the data port is a mask, and the next read of it gives that."""
        return not self._step and not self._poll

    def accept(self, number: int) -> None:
        """The INTA cycle for a line."""
        if not self._auto_eoi:
            self.in_service |= 1 << number
        elif self._rotate:
            self._lowest = number + 1 & 7
        if not self.edge_level >> number & 1:
            self.requests &= ~(1 << number)

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        if self._poll:
            self._poll = False
            number = self.highest()
            if number < 0:
                return 0
            self.accept(number)
            return number | 0x80
        if offset:
            return self.mask
        return self.in_service if self._read_service else self.requests

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        if offset:
            self._data(value)
        elif value & ICW1:
            self._initialize(value)
        elif value & OCW3:
            self._poll |= bool(value & OCW3_POLL)
            if value & OCW3_READ:
                self._read_service = bool(value & 1)
            if value & OCW3_SPECIAL_MASK:
                self._special_mask = bool(value & 0x20)
        else:
            self._end_of_interrupt(value >> 5, value & 7)

    def _initialize(self, value: int) -> None:
        self._levels = self.in_service = self.mask = self._lowest = self.base = 0
        self.requests &= self.edge_level
        self._auto_eoi = self._nested = self._rotate = False
        self._special_mask = self._read_service = self._poll = False
        self._step, self._word4, self._single = 1, bool(value & ICW1_WORD4), bool(value & ICW1_SINGLE)

    def _data(self, value: int) -> None:
        if self._step == 0:
            self.mask = value
        elif self._step == 1:
            self.base = value & 0xF8
            self._step = (3 if self._word4 else 0) if self._single else 2
        elif self._step == 2:  # which line is cascaded is soldered
            self._step = 3 if self._word4 else 0
        else:
            self._auto_eoi, self._nested = bool(value & ICW4_AUTO_EOI), bool(value & ICW4_NESTED)
            self._step = 0

    def _end_of_interrupt(self, command: int, number: int) -> None:
        """Operation command word 2: bits 7 to 5 are rotate, specific, end of interrupt."""
        if command in (0, 4):
            self._rotate = command == 4
        elif command in (1, 5):
            priority = self._priority(self.in_service)
            if priority != NONE:
                served = priority + self._lowest & 7
                self.in_service &= ~(1 << served)
                if command == 5:
                    self._lowest = served + 1 & 7
        elif command == 3:
            self.in_service &= ~(1 << number)
        elif command == 6:
            self._lowest = number + 1 & 7
        elif command == 7:
            self.in_service &= ~(1 << number)
            self._lowest = number + 1 & 7


class InterruptControllers:
    """Both: lines 0 to 15, and what the processor sees of them (`pending`, `acknowledge`)."""

    def __init__(self) -> None:
        self.master, self.slave = Pic8259(master=True), Pic8259(master=False)

    def set_line(self, number: int, level: bool) -> None:
        """The wire of a line, 0 to 15, is high or low."""
        if number >= 8:
            self.slave.set_line(number - 8, level)
        elif number != CASCADE:
            self.master.set_line(number, level)

    def _cascade(self) -> None:
        self.master.set_line(CASCADE, False)
        if self.slave.highest() >= 0:
            self.master.set_line(CASCADE, True)
        else:
            self.master.requests &= ~(1 << CASCADE)

    def pending(self) -> bool:
        """Whether the INTR pin is high."""
        slave, master = self.slave, self.master
        if not slave.requests & ~slave.mask and not master.requests & (~master.mask | 1 << CASCADE):
            return False
        self._cascade()
        return self.master.highest() >= 0

    def shortcuts(self) -> tuple[bool, int, int]:
        """Whether writes may come out late, for no line asks for anything and nothing is half written; and what the
        data ports of both read."""
        master, slave = self.master, self.slave
        quiet = not (master.requests | slave.requests) and master.settled and slave.settled
        return quiet, master.mask, slave.mask

    def acknowledge(self) -> int:
        """The INTA cycle: the vector; that of line 7 when the request has gone in between (data sheet, "spurious")."""
        self._cascade()
        number = self.master.highest()
        if number < 0:
            return self.master.base | SPURIOUS
        self.master.accept(number)
        if number != CASCADE:
            return self.master.base | number
        second = self.slave.highest()
        if second < 0:
            return self.slave.base | SPURIOUS
        self.slave.accept(second)
        return self.slave.base | second


class EdgeLevel:
    """The two edge/level registers at 4D0h; lines 0, 1, 2, 8 and 13 are edges always."""

    MASKS: Final = (0xF8, 0xDE)

    def __init__(self, controllers: InterruptControllers) -> None:
        self._pics = controllers.master, controllers.slave

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return self._pics[offset & 1].edge_level

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        self._pics[offset & 1].edge_level = value & self.MASKS[offset & 1]
