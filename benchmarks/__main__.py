"""All benchmarks, into one page: ``python -m benchmarks``.

Every case runs ours and the plain formulations a user would write in one go, interleaved (see pairs), and asks whether
what was wanted is reached; growth and DAG have sections of their own. Run it with nothing beside it: an hour on two
cores.
"""

import argparse
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import lsp, similarities, student_step
from benchmarks.pairs import Case, Measured, Result, measure, say
from benchmarks.steps import ROOT, cpu_name, markdown, shown
from distillbench.models.backends import missing_reason
from distillbench.record import write_atomically

SUITES = {"lsp": lsp.cases, "step": student_step.cases, "similarities": similarities.cases}


def chosen(patterns: Sequence[str]) -> list[Case]:
    """The cases whose suite or name contains one of ``patterns``; all without any. Raises SystemExit if none does."""
    found = [
        case
        for suite, cases in SUITES.items()
        for case in cases()
        if not patterns or any(p.lower() in f"{suite} {case.name}".lower() for p in patterns)
    ]
    if not found:
        raise SystemExit(
            f"--only {' '.join(patterns)}: no such case; there are {', '.join(SUITES)}; and {', '.join(SECTIONS)}"
        )
    return found


def row_of(result: Result, other: int) -> list[str]:
    """A row of the table: ours against one other side."""
    case, ours, side = result.case, result.sides[0], result.sides[1 + other]
    ratio, target, spread = result.ratio(other), case.targets[other], result.spread(other)
    row = [case.name, case.others[other].name, shown(ours.median, 1, 1000)]
    if ratio is None:
        return [*row, side.missing, "–", "–", "–", _megabytes(ours), "–", "–", shown(result.over_limit, 1), "–"]
    return [
        *row,
        shown(side.median, 1, 1000),
        f"{ratio:.2f}",
        "–" if spread is None else f"{spread[0]:.2f}–{spread[1]:.2f}",
        _wanted(target, ratio, "≥"),
        _megabytes(ours),
        _megabytes(side),
        _wanted(case.memory_mb if side.memory_mb >= 1000 else None, ours.memory_mb, "≤"),
        shown(result.over_limit, 1),
        "–" if side.differs is None else f"{side.differs:.0e}",
    ]


def _megabytes(one: Measured) -> str:
    return shown(None if math.isnan(one.memory_mb) else one.memory_mb, 0)


def _wanted(target: float | None, found: float, sign: str) -> str:
    if target is None:
        return "–"
    reached = found >= target if sign == "≥" else found <= target
    return f"{sign} {target:g}: {'yes' if reached else '**no**'}"


HEADER = [
    "Case",
    "Against",
    "ours, ms",
    "theirs, ms",
    "theirs / ours",
    "quartiles",
    "wanted",
    "ours, MB",
    "theirs, MB",
    "wanted, MB",
    "ours / limit",
    "differ by",
]


def machine(device: str) -> str:
    """What it runs on."""
    where = torch.cuda.get_device_name() if device != "cpu" else f"{cpu_name()}, {os.cpu_count()} cores"
    return f"{where}, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"


def against_plain(args: argparse.Namespace) -> str:
    """Every case, interleaved."""
    results = []
    for case in filter(None, (each.on(args.device) for each in chosen(args.only))):
        result = measure(case, args.pairs, args.device)
        if result is not None:
            results.append(result)
            say(result)
    if not results:
        raise SystemExit("none of these cases can be measured here")
    return AGAINST_PLAIN.format(
        pairs=args.pairs,
        gemm=f"{statistics.median(result.gemm for result in results) / 1e9:.0f} Gflop/s",
        bandwidth=f"{statistics.median(result.bandwidth for result in results) / 1e9:.1f} GB/s",
        threads="one thread a process" if args.device == "cpu" else "the GPU",
        table=markdown(HEADER, [row_of(r, other) for r in results for other in range(len(r.case.others))]),
    )


def grown(args: argparse.Namespace) -> str:
    """Growth with nodes and edges."""
    from benchmarks import growth  # a machine that measures steps need not be able to draw

    backends = [backend for backend in ("pyg", "csr") if missing_reason(backend) is None]
    name = "growth.png" if args.device == "cpu" else f"growth-{args.device}.png"
    return GROWN.format(tables=growth.section(args.output.with_name(name), backends, args.device, args.shrink))


def of_run(args: argparse.Namespace) -> str:
    """Where the wall time of the default run goes."""
    from benchmarks import dag

    return dag.run_section(args.keep)


def of_grids(args: argparse.Namespace) -> str:  # noqa: ARG001
    """What large grids cost."""
    from benchmarks import dag

    return dag.grids_section()


SECTIONS = {"plain": against_plain, "growth": grown, "run": of_run, "grids": of_grids}
OF_CPUS = ("run", "grids")
AGAINST_PLAIN = """## Against plain formulations

Every side in a process of its own, in turn, medians of {pairs} steps after warming up, on {threads}. “theirs / ours” is
the ratio of medians: how many times as long the other takes; quartiles: of the ratio, round by round. MB: the peak of a
step beyond what is held before it. “ours / limit”: our time over the time in which the machine, at the rates measured
meanwhile ({gemm} in dense products, {bandwidth} in copies), could do the arithmetic and the memory traffic that the
computation cannot do without. “differ by”: largest difference between two results, relative to the largest number in
one. “default malloc” is what a script has that does not care; without the words, malloc keeps what is freed, as in
every run of distillbench.

{table}
"""
GROWN = """## Growth

Time and memory of one epoch of an LSP student (GAT, 5 layers of 2 × 68; the teacher's part is computed before), and of
its structure loss alone. Exponents: slopes of the logarithms, over the upper half of the sizes and over all of them;
1 is linear. MB: beyond the graph and what else is held before training.

{tables}
"""
TITLE = "# How fast it is\n\n`make benchmarks` writes all of this page; `python -m benchmarks --only growth` a part.\n"


def replaced(page: str, name: str, text: str) -> str:
    """The page with a section in place of the one of that name, or at its end."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    block = f"{begin}\n{text.strip()}\n{end}"
    if begin in page and end in page:
        before, _, rest = page.partition(begin)
        return before + block + rest.partition(end)[2]
    return f"{page.rstrip()}\n\n{block}\n"


def with_rows(page: str, name: str, text: str, about: str) -> str:
    """The page with the rows of ``text``'s table in place of those of the same case and side, and ``about`` above.

    Raises SystemExit where the page has no such section or row.
    """
    _, begin, rest = page.partition(f"<!-- {name} -->\n")
    section, end, _ = rest.partition(f"<!-- end of {name} -->")
    lines = section.splitlines()
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    places = {tuple(line.split("|")[1:3]): i for i, line in enumerate(lines) if line.startswith("| ")}
    for row in rows:
        if (place := places.get(tuple(row.split("|")[1:3]))) is None:
            raise SystemExit(f"the page has no row {'|'.join(row.split('|')[1:3]).strip()} in its section {name}")
        lines[place] = row
    first = next((i for i, line in enumerate(lines) if line.startswith("Written by ")), None)
    if not (begin and end and rows and first is not None):
        raise SystemExit(f"the page has no section {name} whose rows could be measured again")
    same = about.partition(": written by ")[0] + ": "  # an earlier measurement of the same cases
    lines = [*lines[: first + 1], about, *(line for line in lines[first + 1 :] if not line.startswith(same))]
    return page.replace(section, "\n".join(lines) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORD",
        help="sections (plain, growth, run, grids), or cases whose suite or name has one of these words",
    )
    parser.add_argument("--pairs", type=int, default=7, help="steps of each side (at least 5 for a page that is kept)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shrink", type=int, default=1, help="divide the sizes of the growth by this, for a trial")
    parser.add_argument("--output", type=Path, help="the page; default: benchmarks/RESULTS.md, and for some cases none")
    parser.add_argument("--again", action="store_true", help="put the rows of --only's cases into the page's table")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for the default run, to be kept")
    args = parser.parse_args(arguments)
    given = sys.argv[1:] if arguments is None else list(arguments)
    if args.pairs < 2:
        parser.error(f"--pairs: {args.pairs}: at least 2")
    wanted = [name for name in SECTIONS if name in args.only]
    args.only = [word for word in args.only if word not in SECTIONS]
    if args.only and "plain" not in wanted:
        wanted = ["plain", *wanted]
    if args.device != "cpu" and set(wanted) & set(OF_CPUS):
        parser.error(f"--only {' '.join(wanted)}: {' and '.join(OF_CPUS)} are measured on CPUs; add --device cpu")
    wanted = wanted or [name for name in SECTIONS if name not in OF_CPUS or args.device == "cpu"]
    # some cases are a trial: the page's table is of all of them
    keep = args.output is not None or not args.only
    if args.again and (wanted != ["plain"] or not args.only):
        parser.error("--again: of some cases of the section plain; name them by --only")
    args.output = args.output or ROOT / "benchmarks" / "RESULTS.md"
    for name in wanted:
        begun = time.monotonic()
        heading, _, text = SECTIONS[name](args).strip().partition("\n")
        written = " ".join(["python -m benchmarks", *given])
        about = f"Written by `{written}` on {datetime.now(UTC).date()} in {time.monotonic() - begun:.0f} s; "
        about += f"{machine(args.device)}."
        section = f"{heading}{'' if args.device == 'cpu' else ', on a GPU'}\n\n{about}\n{text}"
        if keep:
            page = args.output.read_text(encoding="utf-8") if args.output.exists() else TITLE
            write_atomically(args.output, replaced(page, f"{name} {args.device}", section))
        elif args.again:
            page, rows = args.output.read_text(encoding="utf-8"), f"Of these, {', '.join(args.only)}: "
            page = with_rows(page, f"{name} {args.device}", section, rows + about[0].lower() + about[1:])
            write_atomically(args.output, page)
        print(section)


if __name__ == "__main__":
    main()
