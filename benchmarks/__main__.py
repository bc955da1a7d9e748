"""All benchmarks, into one page: ``python -m benchmarks``.

Every case runs ours and the plain formulations a user would write in one go, interleaved (see pairs), and asks whether
what was wanted is reached. Run it with nothing beside it; 20 minutes on two cores.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import growth, lsp, similarities, student_step
from benchmarks.pairs import Case, Result, measure, say
from benchmarks.steps import ROOT, cpu_name, markdown, shown
from distillbench.backends import missing_reason

SUITES = {"lsp": lsp.cases, "step": student_step.cases, "similarities": similarities.cases}


def chosen(patterns: Sequence[str]) -> list[Case]:
    """The cases whose suite or name contains one of ``patterns``; all without any. Raises SystemExit if none does."""
    found = [
        case
        for suite, cases in SUITES.items()
        for case in cases()
        if not patterns or any(p.lower() in f"{suite} {case.name}".lower() for p in patterns)
    ]
    if not found and "growth" not in patterns:
        raise SystemExit(f"--only {' '.join(patterns)}: no such case; there are {', '.join(SUITES)} and growth")
    return found


def row_of(result: Result, other: int) -> list[str]:
    """A row of the table: ours against one other side."""
    case, ours, side = result.case, result.sides[0], result.sides[1 + other]
    ratio, target = result.ratio(other), case.targets[other]
    if ratio is None:
        return [case.name, case.others[other].name, shown(ours.median, 1, 1000), side.missing, *["–"] * 6]
    reached = "–" if target is None else f"{'yes' if ratio >= target else '**no**'}, ≥ {target:g}"
    return [
        case.name,
        case.others[other].name,
        shown(ours.median, 1, 1000),
        shown(side.median, 1, 1000),
        f"{ratio:.2f}",
        reached,
        shown(ours.memory_mb, 0),
        shown(side.memory_mb, 0),
        shown(result.over_limit, 1),
        "–" if side.differs is None else f"{side.differs:.0e}",
    ]


HEADER = [
    "Case",
    "Against",
    "ours, ms",
    "theirs, ms",
    "theirs / ours",
    "wanted",
    "ours, MB",
    "theirs, MB",
    "ours / limit",
    "differ by",
]


def machine(device: str, results: Sequence[Result]) -> str:
    """What it ran on."""
    where = torch.cuda.get_device_name() if device != "cpu" else f"one thread of {cpu_name()}"
    rates = ""
    if results:
        gemm = statistics.median(result.gemm for result in results)
        bandwidth = statistics.median(result.bandwidth for result in results)
        rates = (
            f"; measured meanwhile: {gemm / 1e9:.0f} Gflop/s in dense products, {bandwidth / 1e9:.1f} GB/s in copies"
        )
    return f"{where}, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}{rates}"


def report(args: argparse.Namespace) -> str:
    """Measure, and write the page."""
    begun = time.monotonic()
    results = []
    for case in chosen(args.only):
        results.append(measure(case, args.pairs, args.device))
        say(results[-1])
    table = markdown(HEADER, [row_of(r, other) for r in results for other in range(len(r.case.others))])
    growing = ""
    if not args.only or "growth" in args.only:
        backends = [b for b in ("pyg", "csr") if missing_reason(b) is None]
        growing = growth.section(args.output.with_name("growth.png"), backends, args.shrink)
    return PAGE.format(
        command=" ".join(["python -m benchmarks", *args.given]),
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(args.device, results),
        seconds=f"{time.monotonic() - begun:.0f}",
        pairs=args.pairs,
        table=table,
        growth=growing or "Not measured.",
    )


PAGE = """# How fast it is

Written by `{command}` on {date} in {seconds} s; {machine}.

## Against plain formulations

Every side in a process of its own, in turn, medians of {pairs} steps after warming up. “theirs / ours” is the ratio of
medians: how many times as long the other takes. MB: the peak of a step beyond what is held before it. “ours / limit”:
our time over the time in which the machine, at the rates measured meanwhile, could do the dense products and the
memory traffic that the computation cannot do without. “differ by”: largest difference between the two results, relative
to the largest number in ours. “default malloc” is what a script has that does not care; without the words, malloc keeps
what is freed, as in every run of distillbench.

{table}

## Growth

Time and memory of one epoch of an LSP student (GAT, 5 layers of 2 × 68, without the teacher's part, which is computed
once). Exponent: slope of the logarithms over the upper half of the sizes.

{growth}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases or suites whose name has one")
    parser.add_argument("--pairs", type=int, default=7, help="steps of each side (at least 5 for a page that is kept)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shrink", type=int, default=1, help="divide the sizes of the growth by this, for a trial")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "RESULTS.md")
    args = parser.parse_args(arguments)
    args.given = sys.argv[1:] if arguments is None else list(arguments)
    page = report(args)
    args.output.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
