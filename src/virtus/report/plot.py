"""A comparison as a picture: a bar for each candidate, wall time as a multiple of the first one's."""

from pathlib import Path
from typing import Any

from virtus.errors import UsageError

OURS, PEERS, NATIVE = "#1f6fb4", "#b0b7bf", "#3b3f45"
LEGEND = {"native": NATIVE, "a technique of virtus": OURS, "another program": PEERS}
FAR = 30.0
"""Past this multiple a linear axis shows nothing of the others."""
SUFFIXES = (".svg", ".png", ".pdf")


def check(path: Path) -> None:
    """Raises UsageError for a file name whose ending names no picture format, or in a missing directory."""
    if path.suffix not in SUFFIXES:
        raise UsageError("writing --plot", f"{path} ends in none of {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise UsageError("writing --plot", f"{path.absolute().parent} is not a directory")


def plot(comparison: Any, path: Path, ours: frozenset[str]) -> None:
    """Draw it; `ours` are the names of virtus's own techniques."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    results = sorted(comparison.results, key=lambda result: result.ratio)
    names = [result.name for result in results]
    ratios = [result.ratio for result in results]
    below = [result.ratio - result.ratio_min for result in results]
    above = [result.ratio_max - result.ratio for result in results]
    colours = [OURS if name in ours else NATIVE if name == "native" else PEERS for name in names]
    figure, axes = pyplot.subplots(figsize=(8.4, 1.5 + 0.46 * len(results)), layout="constrained")
    rows = range(len(results))
    axes.barh(rows, ratios, color=colours, height=0.62, xerr=[below, above], error_kw={"ecolor": "#555", "capsize": 2})
    for row, result in zip(rows, results, strict=True):
        text = f"{result.ratio:.2f}x   {result.wall_s:.2f} s" + ("" if result.same_output else "   output differs")
        place = (result.ratio_max, row)
        axes.annotate(text, place, xytext=(7, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(list(rows), names)
    axes.invert_yaxis()
    top = max(result.ratio_max for result in results)
    if top > FAR:
        axes.set_xscale("log")
        axes.set_xlim(min(0.5, *(result.ratio_min for result in results)), top**1.35)
    else:
        axes.set_xlim(0, top * 1.3)
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.grid(axis="x", color="#e3e6e9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.axvline(1, color=NATIVE, linewidth=0.8, linestyle=":")
    scale = ", logarithmic" if top > FAR else ""
    multiple = f"multiple of {comparison.reference}{scale}"
    axes.set_xlabel(f"wall time, {multiple} (median of {comparison.rounds} runs; line: min to max)")
    axes.set_title(" ".join(comparison.guest)[:90], fontsize=10, loc="left", parse_math=False)
    keys = [Patch(color=colour, label=label) for label, colour in LEGEND.items() if colour in colours]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
