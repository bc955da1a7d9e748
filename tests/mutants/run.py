"""Plants the faults of this folder's lists, one at a time, and sees that the tests named beside each notice it.

    python tests/mutants/run.py [--only WORDS ...] [--processes 2]

Each list is a file of YAML, one entry a fault: ``fault`` (what is wrong, a sentence), ``file``, ``old`` (text that is
in the file once) and ``new`` (what takes its place), ``tests`` (what must notice it). A whole run writes
docs/mutants.md.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue

import yaml

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/mutants.md"
SECONDS = 600  # after which a test that goes on has noticed something
HEAD = """# Planted faults, and the tests that notice them

{finding} `make mutants` plants each fault of
[tests/mutants](../tests/mutants) by itself in a copy of the project and runs the tests named beside it, until one
fails; without the fault they all pass. A fault that survives is a defect of the tests. Whoever adds a capability adds
its faults.
"""


@dataclass(frozen=True)
class Mutant:
    """A fault: in ``file``, ``old``, which is there once, becomes ``new``; one of ``tests`` must fail."""

    room: str
    fault: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def planted(self, text: str) -> str:
        """The content of the file with the fault. Raises ValueError where ``old`` is not there once."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.room}: {self.fault}: its `old` is {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Result:
    """What became of a fault: killed by a test (or by a test that did not end), or not."""

    killed: bool
    by: str
    seconds: float


def mutants(folder: Path = Path(__file__).parent) -> list[Mutant]:
    """All faults of the lists. Raises TypeError for an entry with other keys, ValueError for faults of one name."""
    found = []
    for file in sorted(folder.glob("*.yaml")):
        for entry in yaml.safe_load(file.read_text()):
            tests = entry.pop("tests")
            found.append(Mutant(file.stem, tests=tuple([tests] if isinstance(tests, str) else tests), **entry))
    names = [mutant.fault for mutant in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two faults are called {min(twice)!r}")
    return found


@contextmanager
def copy_of_the_project() -> Iterator[Path]:
    """What git knows or would add, in a folder of its own, with ``shared`` beside it where there is one."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "project"
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        if (ROOT.parent / "shared").is_dir():
            (copy.parent / "shared").symlink_to(ROOT.parent / "shared")
        yield copy


def tested(copy: Path, tests: tuple[str, ...], *options: str) -> "subprocess.CompletedProcess[str]":
    """Run some tests in a copy."""
    path = os.pathsep.join([str(copy / "workflow"), str(copy)])
    # a file that was changed twice in one second has a stale .pyc
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "DISTILLBENCH_ALL_TESTS": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests]
    return subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def tried(copy: Path, mutant: Mutant) -> Result:
    """Plant one fault, run its tests, take it out again. Raises RuntimeError where no test could be run."""
    file = copy / mutant.file
    before, begun = file.read_text(), time.monotonic()
    file.write_text(mutant.planted(before))
    try:
        done = tested(copy, mutant.tests, "-x")
    except subprocess.TimeoutExpired:
        return Result(True, f"one of {', '.join(mutant.tests)} does not end", time.monotonic() - begun)
    finally:
        file.write_text(before)
    seconds = time.monotonic() - begun
    if done.returncode not in (0, 1):  # such as a module that does not import: that is no silent fault
        raise RuntimeError(
            f"{mutant.room}: {mutant.fault}: no test was run\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    failed = re.search(r"^(?:FAILED|ERROR) (\S+?)(?:\[.*)?(?: - .*)?$", done.stdout, re.MULTILINE)
    return Result(done.returncode == 1, failed[1] if failed else "", seconds)


def page(results: dict[Mutant, Result]) -> str:
    """docs/mutants.md."""
    survivors = [mutant for mutant, result in results.items() if not result.killed]
    noticed, today = len(results) - len(survivors), f"{datetime.now(UTC):%Y-%m-%d}"
    finding = f"**{noticed} of {len(results)} planted faults are noticed** ({today})."
    lines = [HEAD.format(finding=finding)]
    for room in dict.fromkeys(mutant.room for mutant in results):
        lines += [f"## {room.replace('_', ' ').capitalize()}\n", "| Fault | In | Noticed by |", "|:--|:--|:--|"]
        for mutant, result in results.items():
            if mutant.room == room:
                lines.append(f"| {_cell(mutant.fault)} | {_source(mutant.file)} | {_killer(result)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", r"\<")


def _source(file: str) -> str:
    return f"[{Path(file).name}](../{file})"


def _killer(result: Result) -> str:
    if not result.killed:
        return "**nothing**"
    file, _, test = result.by.partition("::")
    return f"[{test.split('::')[-1].removeprefix('test_').replace('_', ' ')}](../{file})" if test else result.by


def main(arguments: list[str] | None = None) -> int:
    """See the module. Returns 1 where a fault survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORDS", help="faults with one of these in list, file or sentence")
    parser.add_argument("--processes", type=int, default=2, help="copies that are worked in side by side")
    options = parser.parse_args(arguments)
    chosen = [
        mutant
        for mutant in mutants()
        if not options.only or any(word in f"{mutant.room} {mutant.file} {mutant.fault}" for word in options.only)
    ]
    for mutant in chosen:
        mutant.planted((ROOT / mutant.file).read_text())
    copies: Queue[Path] = Queue()
    results: dict[Mutant, Result] = {}

    def work(mutant: Mutant) -> None:
        copy = copies.get()
        try:
            results[mutant] = result = tried(copy, mutant)
        finally:
            copies.put(copy)
        what = f"noticed by {result.by}" if result.killed else "SURVIVES"
        print(
            f"{len(results):3d} of {len(chosen)}, {result.seconds:5.1f} s  {mutant.room}: {mutant.fault}: {what}",
            flush=True,
        )

    with copy_of_the_project() as first, copy_of_the_project() as second:
        tests = tuple(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
        print(f"{len(chosen)} faults; their {len(tests)} tests without them first", flush=True)
        quiet = tested(first, tests, "-n", str(options.processes))
        if quiet.returncode:
            print(quiet.stdout[-4000:], quiet.stderr[-2000:])
            return 1
        for copy in (first, second)[: options.processes]:
            copies.put(copy)
        with ThreadPoolExecutor(options.processes) as pool:
            list(pool.map(work, chosen))
    survivors = [mutant for mutant in chosen if not results[mutant].killed]
    for mutant in survivors:
        print(f"SURVIVES: {mutant.room}: {mutant.fault} ({mutant.file}; {', '.join(mutant.tests)})")
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults are noticed")
    if not options.only:
        PAGE.write_text(page({mutant: results[mutant] for mutant in chosen}))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
