"""What others have published: the facts in ``reference/published.csv``, read and checked. No torch, no pandas.

One row is one number of one paper: ``mean`` and ``std`` in percent, ``std`` as published (empty where there is none),
``seeds`` the runs behind it (1: a single run, no spread known; empty: not said). ``verified`` is yes where the number
was read in a source that could be opened; no where it was recalled, and then it is never compared with anything. What
``note`` says counts in two cases: "population std" (the std divides by n, not n - 1) and "not comparable".
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distillbench.params import suggestion

PUBLISHED = Path(__file__).parent / "reference" / "published.csv"
COLUMNS = ("source", "dataset", "teacher", "student", "method", "metric", "mean", "std", "seeds", "verified", "note")
IDENTITY = COLUMNS[:6]
MAY_BE_EMPTY = ("teacher", "std", "seeds", "note")  # self-distillation has no teacher
SUPERVISED = "supervised"  # the published name of the student alone


class ClaimsError(ValueError):
    """A table of published results that cannot be trusted, or has no such results; the message says where to look."""


class Claim(NamedTuple):
    """One published number. ``mean`` and ``std`` are percent; ``std`` is as published, None where there is none."""

    source: str
    dataset: str
    teacher: str
    student: str
    method: str
    metric: str
    mean: float
    std: float | None
    seeds: int | None
    verified: bool
    note: str

    @property
    def sample_std(self) -> float | None:
        """The std with n - 1 in its denominator, percent; None where none was published."""
        if self.std is None or self.seeds is None or "population std" not in self.note:
            return self.std
        return self.std * math.sqrt(self.seeds / (self.seeds - 1))


def read_claims(path: Path = PUBLISHED) -> list[Claim]:
    """Read the table of published results, in its order.

    Raises ClaimsError naming the file and, for every problem, line and column: wrong columns, a number that is none or
    not in 0..100, a std without at least two seeds, ``verified`` other than yes or no, the same cell twice.
    """
    try:
        lines = list(_numbered_rows(path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ClaimsError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    if not lines or tuple(lines[0][1]) != COLUMNS:
        found = ",".join(lines[0][1]) if lines else "nothing"
        raise ClaimsError(f"{path}: line 1: the columns are {found}; they must be {','.join(COLUMNS)}")
    claims, problems = [], []
    first: dict[tuple[str, ...], int] = {}
    for number, texts in lines[1:]:
        if len(texts) != len(COLUMNS):
            problems.append(f"line {number}: {len(texts)} fields, there are {len(COLUMNS)} columns")
            continue
        row = dict(zip(COLUMNS, texts, strict=True))
        found_here = [f"line {number}, column {column!r}: {text}" for column, text in _problems(row)]
        key = tuple(row[name] for name in IDENTITY)
        if key in first:
            found_here.append(f"line {number}, column 'method': {'/'.join(key)} is on line {first[key]} already")
        first.setdefault(key, number)
        problems += found_here
        if not found_here:
            claims.append(_claim(row))
    if problems:
        raise ClaimsError(f"{path}:\n" + "\n".join(f"  {problem}" for problem in problems))
    return claims


def matching(
    claims: Sequence[Claim], dataset: str, teacher: str, student: str, sources: Sequence[str] = ()
) -> list[Claim]:
    """The claims about one teacher and student, named as in the table; ``sources``: of these papers only."""
    return [
        claim for claim in claims
        if (claim.dataset, claim.teacher, claim.student) == (dataset, teacher, student)
        and (not sources or claim.source in sources)
    ]  # fmt: skip


def mismatch(
    claims: Sequence[Claim],
    dataset: str,
    teacher: str,
    student: str,
    sources: Sequence[str] = (),
    methods: dict[str, str] | None = None,
) -> str:
    """What of a pair's ``published`` names nothing in the table, with what there is; empty where all is found.

    ``dataset`` is the name of the data set's file; ``methods`` maps our variants to published methods.
    """
    of_dataset = [claim for claim in claims if claim.dataset == dataset]
    if not of_dataset:
        return f"no published results of data set {dataset!r}{suggestion(dataset, _each(claims, 'dataset'))}"
    of_pair = matching(claims, dataset, teacher, student)
    if not of_pair:
        there = dict.fromkeys(f"{claim.teacher or 'no teacher'} → {claim.student}" for claim in of_dataset)
        wanted = f"teacher {teacher!r} and student {student!r}"
        return f"no published results of {dataset} with {wanted}; there are: {', '.join(there)}"
    for source in sources:
        if source not in _each(of_pair, "source"):
            return f"sources: {source!r} has no results of this pair{suggestion(source, _each(of_pair, 'source'))}"
    known = _each(matching(claims, dataset, teacher, student, sources), "method")
    for variant, method in (methods or {}).items():
        if method not in known:
            return f"methods.{variant}: no published results of {method!r}{suggestion(method, known)}"
    return ""


def _numbered_rows(path: Path) -> list[tuple[int, list[str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        return [(reader.line_num, texts) for texts in reader if texts]


def _problems(row: dict[str, str]) -> list[tuple[str, str]]:
    """(column, what is wrong with it)."""
    problems = [
        (name, "is empty") for name in COLUMNS if name not in (*MAY_BE_EMPTY, "mean", "verified") and not row[name]
    ]
    for name in ("mean", "std"):
        if (row[name] or name == "mean") and not _is_percent(row[name]):
            problems.append((name, f"{row[name]!r} is not a number from 0 to 100"))
    if row["seeds"] and not (row["seeds"].isdecimal() and int(row["seeds"]) > 0):
        problems.append(("seeds", f"{row['seeds']!r} is not a number of runs"))
    elif row["std"] and row["seeds"] in ("", "1"):
        problems.append(("seeds", f"{row['seeds']!r} runs have no std"))
    if row["verified"] not in ("yes", "no"):
        problems.append(("verified", f"{row['verified']!r} is neither yes nor no"))
    return problems


def _is_percent(text: str) -> bool:
    try:
        return 0 <= float(text) <= 100
    except ValueError:
        return False


def _claim(row: dict[str, str]) -> Claim:
    numbers = {
        "mean": float(row["mean"]),
        "std": float(row["std"]) if row["std"] else None,
        "seeds": int(row["seeds"]) if row["seeds"] else None,
        "verified": row["verified"] == "yes",
    }
    return Claim(**{**row, **numbers})  # type: ignore[arg-type]


def _each(claims: Sequence[Claim], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(claim, field) for claim in claims))
