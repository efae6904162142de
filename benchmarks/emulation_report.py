"""What the emulation benchmark found, as tables in Markdown and as a picture."""

import statistics
from pathlib import Path
from typing import Any, Final

from benchmarks import quiet
from benchmarks.published import DOCS, Published

PUBLISHED: Final = Published(DOCS / "emulation.md", "emulation")
OURS, COLD, QEMU = "emulation", "emulation, nothing kept", "qemu-riscv64"
COLOURS: Final = {"native": "#3b3f45", OURS: "#1f6fb4", "unicorn-riscv64": "#b0b7bf"}
"""Of the bars; QEMU is the line that they start from."""


def speed_ups(program: dict[str, Any], name: str, figure: str = "round_us") -> list[float]:
    """How many times as fast as QEMU a candidate was, run by run; [] where one of the two is missing."""
    found = program["candidates"]
    if name not in found or QEMU not in found:
        return []
    return [qemu / own for qemu, own in zip(found[QEMU][figure], found[name][figure], strict=True)]


def line(name: str, program: dict[str, Any]) -> str:
    """A program's figures while the benchmark goes on."""
    medians = {key: statistics.median(found["round_us"]) for key, found in program["candidates"].items()}
    return f"{name}: " + ", ".join(f"{key} {value:,.0f} µs" for key, value in medians.items())


def geometric_mean(programs: dict[str, Any], name: str) -> tuple[float, float]:
    """Of the medians of all programs' speed-ups, and the least of them; zeros where there are none."""
    medians = [statistics.median(ups) for program in programs.values() if (ups := speed_ups(program, name))]
    return (statistics.geometric_mean(medians), min(medians)) if medians else (0.0, 0.0)


def markdown(figures: dict[str, Any]) -> str:
    """The tables of docs/emulation.md."""
    programs = figures["programs"]
    busy = figures["others"] > quiet.MOST
    lines = [
        f"{figures['runs']} runs each, on {figures['processors']} processors ({figures['model']}), "
        f"Linux {figures['kernel']}. Other programs took {figures['others']:.0%} of the processors meanwhile"
        + (": these figures are not those of an idle machine." if busy else "."),
        "",
        *(f"Not measured: {name}: {reason}." for name, reason in figures["missing"].items()),
        *([""] if figures["missing"] else []),
        "### Steady state: a round of each program",
        "",
        *_table(programs, "round_us", 1e3, "ms"),
    ]
    mean, least = geometric_mean(programs, OURS)
    if mean:
        lines += ["", f"Geometric mean over qemu-riscv64: {mean:.2f}, the least {least:.2f}."]
    lines += ["", "### Whole runs", "", *_table(programs, "whole_s", 1, "s")]
    lines += ["", "### Starting", "", *_starts(figures)]
    rates = _spread([rate / 1e6 for rate in figures["interpreted"]])
    lines += ["", f"The interpreter by itself: {rates} million instructions a second."]
    return "\n".join(lines)


def _table(programs: dict[str, Any], figure: str, scale: float, unit: str) -> list[str]:
    names = list(dict.fromkeys(n for p in programs.values() for n, found in p["candidates"].items() if found[figure]))
    compared = [name for name in (OURS, COLD) if name in names] if figure == "whole_s" else [OURS]
    heads = [f"{name} {unit}" for name in names] + [f"{name}: x qemu-riscv64 (min-max)" for name in compared]
    rows = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for label, program in programs.items():
        cells = [f"{statistics.median(program['candidates'][name][figure]) / scale:.2f}" for name in names]
        cells += [_spread(speed_ups(program, name, figure)) for name in compared]
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return rows


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})" if values else "-"


def _starts(figures: dict[str, Any]) -> list[str]:
    starts = figures["starts"]
    large = f"first output of {figures['first_output_instructions']:,} instructions, ms"
    rows = [f"| | hello in all, ms | {large} |", "|---|---|---|"]
    for name in starts["hello"]:
        cells = (_spread([value * 1e3 for value in starts[label][name]]) for label in ("hello", "first output"))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def plot(figures: dict[str, Any], path: Path) -> None:
    """How many times as fast as QEMU everybody is, program by program: bars from QEMU's line, a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    programs = figures["programs"]
    names = [name for name in COLOURS if any(speed_ups(program, name) for program in programs.values())]
    if not names:
        return
    figure, axes = pyplot.subplots(figsize=(8.4, 1.6 + 0.6 * len(programs)), layout="constrained")
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        for number, program in enumerate(programs.values()):
            ups = speed_ups(program, name)
            if not ups:
                continue
            row, value = number + (index - (len(names) - 1) / 2) * height, statistics.median(ups)
            label = name if number == 0 else None
            axes.barh(row, value - 1, height * 0.9, left=1, color=COLOURS[name], label=label)
            axes.plot([min(ups), max(ups)], [row, row], color="#555", linewidth=1)
            faster = value >= 1
            place, align = (max(ups), "left") if faster else (min(ups), "right")
            offset = (4 if faster else -4, 0)
            text = f"{value:.2g}"
            style: dict[str, Any] = {"ha": align, "va": "center", "fontsize": 8}
            axes.annotate(text, (place, row), xytext=offset, textcoords="offset points", **style)
    axes.set_yticks(range(len(programs)), list(programs))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.08)
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.axvline(1, color="#3b3f45", linewidth=0.8, linestyle=":")
    axes.grid(axis="x", color="#e3e6e9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(
        f"speed, multiple of qemu-riscv64, logarithmic (median of {figures['runs']} runs; line: min to max)"
    )
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
