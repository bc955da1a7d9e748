"""``distillbench check my_method.py``: whether a method, a data set or a model keeps the contract, and where not.

The file may be anywhere. It is checked with PyG and DGL unless ``--backend`` says otherwise, and with csr, which needs
no library, where neither is installed.
"""

import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from distillbench.contract.cases import Case, cases_of
from distillbench.contract.checks import CHECKS, Check, Subject
from distillbench.contract.datasets import check_dataset
from distillbench.contract.declared import EXCUSABLE
from distillbench.contract.models import check_model
from distillbench.models.backends import BackendUnavailableError, get_backend, missing_reason
from distillbench.plugins import Declaration, PluginError, declaration, kind_of, load

USUAL = ("pyg", "dgl")
SHOWN = 3  # reasons for which one check failed that are printed


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


def usual_libraries() -> tuple[str, ...]:
    """PyG and DGL, even where one is missing, which is said then; where both are, what needs none."""
    return ("csr",) if all(missing_reason(library) for library in USUAL) else USUAL


def entries_of(declared: Declaration, libraries: Sequence[str] = ()) -> list[Entry]:
    """All that is to be checked of a method: the file, then case by case. libraries: the usual ones if none is named.

    Those after the first are compared with it.
    """
    libraries = libraries or usual_libraries()
    entries = [Entry(check) for check in CHECKS if check.scope == "file"]
    for case in cases_of(declared):
        for check in CHECKS:
            if check.scope == "file" or not check.applies(declared, case):
                continue
            if check.scope == "library":
                entries += [Entry(check, case, (library,)) for library in libraries]
            else:
                entries += [Entry(check, case, (libraries[0], other)) for other in libraries[1:]]
    return entries


def excuse(declared: Declaration, check: Check) -> str | None:
    """Why a method is not subject to a check, by its own word."""
    if check.name == "numbering" and declared.attributes.get("samples", False):
        return "it sees a random part of a graph"
    reason: str | None = declared.attributes.get("excused", {}).get(check.name)
    return reason if check.name in EXCUSABLE else None


def result_of(path: Path, entry: Entry) -> Result:
    """Make one check."""
    check, case, libraries = entry
    if reason := next((reason for each in libraries if (reason := _missing(each))), None):
        return Result(entry, "skipped", reason)
    try:
        changed = path.stat().st_mtime_ns
        if reason := excuse(_declared(path, changed), check):
            return Result(entry, "excused", reason)
        if case is None:
            check.function(path)
        else:
            subjects = [_subject(path, changed, case, library) for library in libraries]
            if check.name != "terms" and not all(subject.sound for subject in subjects):
                return Result(entry, "skipped", "its terms are not what they should be")
            check.function(*subjects)
    except Exception as error:
        return Result(entry, "failed", _explained(error, path))
    return Result(entry, "passed")


def results_of(path: Path, libraries: Sequence[str] = ()) -> Iterator[Result]:
    """Make every check of a file; of one that is not declared rightly, that check alone."""
    yield (result := result_of(path, Entry(CHECKS[0])))
    if result.status == "passed":
        for entry in entries_of(declaration("method", path), libraries)[1:]:
            yield result_of(path, entry)


@lru_cache(maxsize=1)
def _declared(path: Path, _changed: int) -> Declaration:
    return declaration("method", path)


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


def _explained(error: Exception, path: Path) -> str:
    """What the contract says, or the end of the traceback, as far as it is in the method's file."""
    if isinstance(error, PluginError) or (isinstance(error, AssertionError) and str(error)):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        traceback.FrameSummary(str(path), frame.lineno, frame.name, line=frame.line)
        for frame in frames
        if Path(frame.filename).resolve() == path.resolve()
    ]
    shown = own[-2:] or frames[-1:]
    return "".join(["it raises\n", *traceback.format_list(shown), *traceback.format_exception_only(error)]).rstrip()


def report(path: Path, libraries: Sequence[str] = ()) -> bool:
    """Print what came of every check of a file; whether none failed."""
    results = list(results_of(path, libraries))
    cases = dict.fromkeys(str(result.entry.case) for result in results if result.entry.case)
    print(f"{path}: {', '.join(cases)}" if cases else path)
    for check in CHECKS:
        if of_check := [result for result in results if result.entry.check is check]:
            _print_check(check, of_check)
    counts = Counter(result.status for result in results)
    print("  " + ", ".join(f"{number} {status}" for status, number in counts.items()))
    return not counts["failed"]


def _print_check(check: Check, results: Sequence[Result]) -> None:
    """A line with the worst that came of it, then what failed, then what was not checked and why."""
    status = next(s for s in ("failed", "passed", "excused", "skipped") if any(r.status == s for r in results))
    print(f"  {status:8} {check.name:14} {check.holds}")
    places: dict[str, list[str]] = {}
    for result in results:
        if result.status == "failed":
            places.setdefault(result.reason, []).append(result.entry.place)
    for reason, (first, *others) in list(places.items())[:SHOWN]:
        place = f"{first} and {len(others)} more" if others else first
        _print_indented(f"{place}: {reason}" if place else reason)
    if unseen := sum(len(each) for each in list(places.values())[SHOWN:]):
        _print_indented(f"and {unseen} more")
    unchecked = Counter((r.status, r.reason) for r in results if r.status in ("excused", "skipped"))
    for (what, reason), number in unchecked.items():
        _print_indented(f"{what} in {number} of {len(results)}: {reason}")


def _print_indented(text: str) -> None:
    print("\n".join(f"           {line}" for line in text.splitlines()))


def check_files(files: Sequence[Path], libraries: Sequence[str]) -> int:
    """Check files of methods, data sets and models and print what came of it; 1 where one fails or cannot be read."""
    torch.set_num_threads(1)  # the data are small
    good = True
    for path in files:
        if not path.is_file():
            print(f"{path}: there is no such file", file=sys.stderr)
            good = False
            continue
        kind = kind_of(path) or {"models": "model", "datasets": "dataset"}.get(path.absolute().parent.name)
        if kind == "dataset":
            good = check_dataset(path) and good
        elif kind == "model":
            good = check_model(path, tuple(libraries)) and good
        else:
            good = report(path, tuple(libraries)) and good
    return 0 if good else 1
