"""``python -m distillbench.check my_method.py``: whether a method keeps the contract, and where it does not.

    python -m distillbench.check FILE [FILE ...] [--backends pyg dgl]

The file may be anywhere. The exit status is 1 where a check fails or a file cannot be read.
"""

import argparse
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from distillbench.backends import BackendUnavailableError, get_backend, missing_reason
from distillbench.contract import CHECKS, LIBRARIES, Check, Subject
from distillbench.plugins import Declaration, PluginError, declaration, load
from distillbench.trial import Case, cases_of

SHOWN = 3  # failures of one check that are printed


class Entry(NamedTuple):
    """One check to be made: on a file, or on a case with a library, or with several."""

    check: Check
    case: Case | None = None
    libraries: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The case and the library, where it is about them."""
        return ", ".join([*([str(self.case)] if self.case else []), *self.libraries])


class Result(NamedTuple):
    """What came of a check; the reason where it has not passed."""

    entry: Entry
    status: Literal["passed", "failed", "excused", "skipped"]
    reason: str = ""


def entries_of(declared: Declaration, libraries: Sequence[str] = tuple(LIBRARIES)) -> list[Entry]:
    """All that is to be checked of a method: the file, then case by case."""
    entries = [Entry(check) for check in CHECKS if check.scope == "file"]
    for case in cases_of(declared):
        for check in CHECKS:
            if check.scope == "file" or not check.applies(declared, case):
                continue
            if check.scope == "library":
                entries += [Entry(check, case, (library,)) for library in libraries]
            elif len(libraries) > 1:
                entries.append(Entry(check, case, tuple(libraries)))
    return entries


def result_of(path: Path, declared: Declaration, entry: Entry) -> Result:
    """Make one check."""
    check, case, libraries = entry
    if reason := _excuse(declared, check):
        return Result(entry, "excused", reason)
    if reason := next((reason for each in libraries if (reason := _missing(each))), None):
        return Result(entry, "skipped", reason)
    try:
        if case is None:
            check.function(path)
        else:
            subjects = [_subject(path, path.stat().st_mtime_ns, case, library) for library in libraries]
            if check.name != "terms" and not all(subject.sound for subject in subjects):
                return Result(entry, "skipped", "its terms are not what they should be")
            check.function(*subjects)
    except Exception as error:
        return Result(entry, "failed", _explained(error, path))
    return Result(entry, "passed")


def results_of(path: Path, libraries: Sequence[str] = tuple(LIBRARIES)) -> Iterator[Result]:
    """Make every check of a file, as far as it can be read."""
    try:
        declared = declaration("method", path)
        load("method", path)
    except Exception as error:
        yield Result(Entry(CHECKS[0]), "failed", _explained(error, path))
        return
    for entry in entries_of(declared, libraries):
        yield result_of(path, declared, entry)


# checks of one case come one after another and share its subjects
@lru_cache(maxsize=4)
def _subject(path: Path, _changed: int, case: Case, library: str) -> Subject:
    return Subject(load("method", path), case, library)


@lru_cache
def _missing(library: str) -> str | None:
    if reason := missing_reason(library):
        return reason
    try:
        get_backend(library)
    except BackendUnavailableError as error:
        return str(error)
    return None


def _excuse(declared: Declaration, check: Check) -> str | None:
    """Why a method is not subject to a check, by its own word."""
    if check.name == "numbering" and declared.attributes.get("samples", False):
        return "it sees a random part of a graph"
    reason: str | None = declared.attributes.get("excused", {}).get(check.name) if check.excusable else None
    return reason


def _explained(error: Exception, path: Path) -> str:
    """What the contract says, or the end of the traceback, as far as it is in the method's file."""
    if isinstance(error, PluginError) or (isinstance(error, AssertionError) and str(error)):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == path] or frames[-1:]
    return "".join(["it raises\n", *traceback.format_list(own[-2:]), *traceback.format_exception_only(error)]).rstrip()


def report(path: Path, libraries: Sequence[str] = tuple(LIBRARIES)) -> bool:
    """Print what came of every check of a file; whether none failed."""
    results = list(results_of(path, libraries))
    print(f"{path}")
    for check in CHECKS:
        of_check = [result for result in results if result.entry.check is check]
        if of_check:
            _print_check(check, of_check)
    counts = Counter(result.status for result in results)
    cases = len({result.entry.case for result in results if result.entry.case})
    print(f"  {cases} cases: {', '.join(f'{number} {status}' for status, number in counts.items())}")
    return not counts["failed"]


def _print_check(check: Check, results: Sequence[Result]) -> None:
    by_status = {status: [r for r in results if r.status == status] for status in ("failed", "excused", "skipped")}
    status = next((status for status in ("failed", "passed") if any(r.status == status for r in results)), None)
    print(f"  {(status or results[0].status):8} {check.name:14} {check.holds}")
    failed = by_status["failed"]
    for result in failed[:SHOWN]:
        place = f"{result.entry.place}: " if result.entry.place else ""
        _print_indented(f"{place}{result.reason}")
    if failed[SHOWN:]:
        _print_indented("and with " + "; ".join(result.entry.place for result in failed[SHOWN:]))
    for reason, number in Counter(r.reason for s in ("excused", "skipped") for r in by_status[s]).items():
        _print_indented(f"{(by_status['excused'] and 'excused') or 'skipped'} {number} times: {reason}")


def _print_indented(text: str) -> None:
    for line in text.splitlines():
        print(f"           {line}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m distillbench.check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--backends", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    chosen = parser.parse_args(arguments)
    good = True
    for path in chosen.files:
        if not path.is_file():
            print(f"{path}: there is no such file", file=sys.stderr)
            good = False
        else:
            good = report(path, tuple(dict.fromkeys(chosen.backends))) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
