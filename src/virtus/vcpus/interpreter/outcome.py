"""How an instruction comes out in the middle of its description."""


class CameOut(Exception):
    """The thread comes out at the instruction, the rest of which does not happen. `outcome` is an exit of layout's."""

    def __init__(self, outcome: int) -> None:
        super().__init__(outcome)
        self.outcome = outcome
