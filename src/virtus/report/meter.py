"""What one run cost, as `virtus run --meter` shows it."""

from virtus.machine.meter import Report

MOST_CALLS = 10


def lines(report: Report) -> list[str]:
    """The report in lines of text."""
    rate = report.exit_count / report.wall_s if report.wall_s else 0.0
    rows = [
        f"{report.technique}: {report.wall_s:.3f} s wall, {report.cpu_s:.3f} s CPU, exit status {report.status}",
        f"  exits       {report.exit_count:,} ({rate:,.0f}/s)"
        + "".join(f", {reason} {count:,}" for reason, count in sorted(report.exits.items())),
        f"  time        {report.guest_s:.3f} s in the guest, {report.personality_s:.3f} s answering it",
        f"  switches    {report.context_switches:,} of the host between processes"
        + (f", {report.context_switches / report.exit_count:.2f} per exit" if report.exit_count else ""),
    ]
    if report.host_processes:
        rows.append(f"  processes   {report.host_processes:,} of the host, in all")
    top = sorted(report.calls.items(), key=lambda item: -item[1])[:MOST_CALLS]
    if top:
        rows.append("  calls       " + ", ".join(f"{name} {count:,}" for name, count in top))
    if report.details:
        rows.append("  " + ", ".join(f"{name} {count:,}" for name, count in report.details.items()))
    rows += [
        f"  note        {line}" + (f" ({count} times)" if count > 1 else "") for line, count in report.notes.items()
    ]
    return rows


def show(report: Report) -> None:
    """Print it to standard error."""
    import sys

    print("\n".join(lines(report)), file=sys.stderr)
