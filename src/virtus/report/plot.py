"""A comparison as a picture: a bar for each candidate, wall time as a multiple of native."""

from pathlib import Path
from typing import Any

from virtus.errors import UsageError

OURS, PEERS, NATIVE = "#1f6fb4", "#b0b7bf", "#3b3f45"
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

    results = sorted(comparison.results, key=lambda result: result.ratio)
    names = [result.name for result in results]
    ratios = [result.ratio for result in results]
    below = [result.ratio - result.ratio_min for result in results]
    above = [result.ratio_max - result.ratio for result in results]
    colours = [OURS if name in ours else NATIVE if name == "native" else PEERS for name in names]
    figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.5 * len(results)), layout="constrained")
    rows = range(len(results))
    axes.barh(rows, ratios, color=colours, height=0.62, xerr=[below, above], error_kw={"ecolor": "#555", "capsize": 2})
    top = max(result.ratio_max for result in results)
    for row, result in zip(rows, results, strict=True):
        text = f"{result.ratio:.2f}x   {result.wall_s:.2f} s" + ("" if result.same_output else "   output differs")
        axes.text(result.ratio_max + top * 0.015, row, text, va="center", fontsize=9)
    axes.set_yticks(list(rows), names)
    axes.invert_yaxis()
    axes.set_xlim(0, top * 1.28)
    axes.axvline(1, color=NATIVE, linewidth=0.8, linestyle=":")
    axes.set_xlabel("wall time, multiple of native (median of runs; line: min to max)")
    axes.set_title(" ".join(comparison.guest)[:80], fontsize=10, loc="left", parse_math=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
