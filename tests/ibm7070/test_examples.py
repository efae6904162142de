"""The examples do what the same job does in Python."""

import io
import random
from dataclasses import replace
from math import isqrt
from pathlib import Path

import pytest

from virtus.guests.autocoder import assemble
from virtus.techniques.ibm7070 import DeckSpec, run_deck

EXAMPLES = Path(__file__).parents[2] / "examples" / "ibm7070"
RATES = {10001: 185, 10002: 225, 10010: 310, 20001: 275, 20005: 410, 30000: 525}
BRACKETS = ((4000, 0), (8000, 90), (12000, 145), (20000, 182), (9999999, 220))
BOTH = pytest.mark.parametrize("interpret", [False, True], ids=["translated", "interpreted"])


def run(spec: DeckSpec) -> tuple[str, str]:
    out, console = io.StringIO(), io.StringIO()
    assert run_deck(spec, out=out, console=console).status == 0
    return out.getvalue(), console.getvalue()


def rounded(number: int, places: int) -> int:
    half: int = 5 * 10 ** (places - 1)
    result: int = (number + half) // 10**places
    return result


def payslip(job: int, hours: int) -> tuple[int, int, int, int] | None:
    """Rate, gross, tax, net in cents."""
    rate = RATES.get(job)
    if rate is None:
        return None
    tenths = hours * rate
    if hours > 400:
        tenths += rounded((hours - 400) * rate * 5, 1)
    gross = rounded(tenths, 1)
    tax = rounded(gross * next(percent for limit, percent in BRACKETS if gross <= limit), 3)
    return rate, gross, tax, gross - tax


def money(cents: int) -> str:
    dollars = str(cents // 100) if cents >= 100 else ""
    return f"{dollars:>10}.{cents % 100:02d}  "


def payroll(cards: list[str]) -> tuple[str, str]:
    lines = [
        "NUM  NAME                     HOURS         RATE          GROSS            TAX              NET",
    ]
    typed = []
    totals = [0, 0, 0]
    for card in cards:
        number, name, job, hours = card[:5], card[5:25], int(card[25:30]), int(card[30:35])
        slip = payslip(job, hours)
        if slip is None:
            typed.append(f"NO SUCH JOB    {number}")
            continue
        rate, gross, tax, net = slip
        totals = [total + amount for total, amount in zip(totals, (gross, tax, net), strict=True)]
        lines.append(number + name + money(hours * 10) + "".join(money(amount) for amount in (rate, gross, tax, net)))
        if len(lines) % 57 == 0:
            lines.append(lines[0])
    lines.append("     " + "TOTAL".ljust(20) + " " * 30 + "".join(money(total) for total in totals))
    typed.append(f"PAYROLL DONE, CARDS {len(lines) - 2 - lines.count(lines[0]) + 1!s:>10}")
    pages = [lines[at : at + 57] for at in range(0, len(lines), 57)]
    return "\f".join("".join(f"{line.rstrip()}\n" for line in page) for page in pages), "\n".join(typed) + "\n"


@BOTH
def test_the_payroll(interpret: bool) -> None:
    cards = EXAMPLES / "payroll.cards"
    printed, console = run(DeckSpec(str(EXAMPLES / "payroll.7070"), cards=str(cards), interpret=interpret))
    expected, typed = payroll(cards.read_text().splitlines())
    assert printed == expected
    assert console.startswith(typed)


@pytest.mark.slow
@BOTH
def test_a_long_payroll(interpret: bool, tmp_path: Path) -> None:
    chance = random.Random(7070)
    jobs = [*RATES, 99999]
    cards = [
        f"{number:05d}{'WORKER NO ' + str(number):20}{chance.choice(jobs):05d}{chance.randrange(700):05d}"
        for number in range(1, 150)
    ]
    path = tmp_path / "cards"
    path.write_text("\n".join(cards) + "\n")
    printed, console = run(DeckSpec(str(EXAMPLES / "payroll.7070"), cards=str(path), interpret=interpret))
    expected, typed = payroll(cards)
    assert printed == expected
    assert console.startswith(typed)


def sort(cards: list[str], directory: Path, *, interpret: bool) -> tuple[str, str]:
    path = directory / "cards"
    path.write_text("".join(f"{card}\n" for card in cards))
    tapes = {unit: str(directory / f"work{unit}.tap") for unit in (11, 12, 13, 14)}
    return run(DeckSpec(str(EXAMPLES / "sort.7070"), cards=str(path), tapes=tapes, interpret=interpret))


@BOTH
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_sorting_on_tapes(count: int, interpret: bool, tmp_path: Path) -> None:
    cards = (EXAMPLES / "names.cards").read_text().splitlines()[:count]
    printed, _ = sort(cards, tmp_path, interpret=interpret)
    assert printed.replace("\f", "").splitlines() == sorted(cards)


@pytest.mark.slow
def test_sorting_many_cards(tmp_path: Path) -> None:
    chance = random.Random(1960)
    cards = [f"{chance.randrange(10**5):05d} CARD {number}" for number in range(77)]
    printed, console = sort(cards, tmp_path, interpret=False)
    assert [line[:5] for line in printed.replace("\f", "").splitlines()] == sorted(card[:5] for card in cards)
    assert sorted(printed.replace("\f", "").splitlines()) == sorted(cards)
    assert console.startswith("CARDS SORTED,    PASSES           7")


@BOTH
def test_square_roots(interpret: bool, tmp_path: Path) -> None:
    numbers = [2, 144, 0, 10**10 - 1, 12345, 1, 99, 10**9, 9999999998, 4_294_967_296]
    path = tmp_path / "cards"
    path.write_text("".join(f"{number:010d}\n" for number in numbers))
    printed, _ = run(DeckSpec(str(EXAMPLES / "sqrt.7070"), cards=str(path), interpret=interpret))
    expected = []
    for number in numbers:
        root = isqrt(number * 10**10)
        whole = str(root // 10**5) if root >= 10**5 else ""
        expected.append(f"THE ROOT OF    {str(number) if number else '':>10}IS   {whole:>10}.{root % 10**5:05d}")
    assert printed.splitlines() == expected


def test_the_decks_of_the_examples_do_the_same(tmp_path: Path) -> None:
    spec = DeckSpec(str(EXAMPLES / "payroll.7070"), cards=str(EXAMPLES / "payroll.cards"))
    deck = tmp_path / "payroll.deck"
    deck.write_text(assemble((EXAMPLES / "payroll.7070").read_text()).deck)
    assert run(replace(spec, path=str(deck))) == run(spec)
