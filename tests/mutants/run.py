"""Plants the faults of this folder's lists, one at a time, and sees that the tests named beside each notice it.

    python tests/mutants/run.py [--only WORDS ...] [--processes 2]

Each list is a file of YAML, one entry a fault: ``fault`` (what is wrong, a sentence), ``file``, ``old`` (text that is
in the file once) and ``new`` (what takes its place), ``tests`` (what must notice it). What came of it goes
into docs/mutants.md; the rows of faults that were not tried stay.
"""

import argparse
import importlib
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import Queue
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/mutants.md"
SURVIVED = "**nothing**"
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


def outcome_of(copy: Path, tests: tuple[str, ...], *options: str, seconds: float = SECONDS) -> tuple[int, str]:
    """Run some tests in a copy, in a fork that has the libraries imported; their exit status and what they printed.

    None of distillbench is imported before the fork. Raises TimeoutError where they do not end.
    """
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            os.setsid()
            for number in (1, 2):
                os.dup2(output.fileno(), number)
            os.chdir(copy)
            sys.path[:0] = [str(copy / "workflow"), str(copy)]
            # what tests start themselves; a file that was changed twice in one second has a stale .pyc
            os.environ.update(PYTHONPATH=f"{copy / 'workflow'}{os.pathsep}{copy}", PYTHONDONTWRITEBYTECODE="1")
            os.environ.pop("DISTILLBENCH_ALL_TESTS", None)
            sys.dont_write_bytecode = True
            status = pytest.main(["-q", "-p", "no:cacheprovider", *options, *tests])
            sys.stdout.flush()
            os._exit(int(status))
        deadline = time.monotonic() + seconds
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise TimeoutError
            time.sleep(0.02)
        output.seek(0)
        return os.waitstatus_to_exitcode(ended[1]), output.read()


def tried(copy: Path, mutant: Mutant) -> Result:
    """Plant one fault, run its tests, take it out again. Raises RuntimeError where no test could be run."""
    file = copy / mutant.file
    before, begun = file.read_text(), time.monotonic()
    file.write_text(mutant.planted(before))
    try:
        status, output = outcome_of(copy, mutant.tests, "-x")
    except TimeoutError:
        return Result(True, f"one of {', '.join(mutant.tests)} does not end", time.monotonic() - begun)
    finally:
        file.write_text(before)
    seconds = time.monotonic() - begun
    if status not in (0, 1):  # such as a module that does not import: that is no silent fault
        raise RuntimeError(f"{mutant.room}: {mutant.fault}: no test was run\n{output[-3000:]}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+?)(?:\[.*)?(?: - .*)?$", output, re.MULTILINE)
    return Result(status == 1, failed[1] if failed else "", seconds)


def work(copy: Path, todo: "Queue[Mutant | None]", done: "Queue[tuple[Mutant, Result | str]]") -> None:
    """A process of its own: tries one fault after another in its copy."""
    while mutant := todo.get():
        try:
            done.put((mutant, tried(copy, mutant)))
        except Exception as error:
            done.put((mutant, str(error)))


def page(results: dict[Mutant, Result], kept: dict[str, str]) -> str:
    """docs/mutants.md. kept: by fault, the rows of a former page, for faults that were not tried this time."""
    rows = {}
    for mutant in mutants():
        name = _cell(mutant.fault)
        if mutant in results:
            rows[mutant] = f"| {name} | {_source(mutant.file)} | {_killer(results[mutant])} |"
        elif name in kept:
            rows[mutant] = kept[name]
    noticed, today = sum(SURVIVED not in row for row in rows.values()), f"{datetime.now(UTC):%Y-%m-%d}"
    lines = [HEAD.format(finding=f"**{noticed} of {len(rows)} planted faults are noticed** ({today}).")]
    for room in dict.fromkeys(mutant.room for mutant in rows):
        lines += [f"## {room.replace('_', ' ').capitalize()}\n", "| Fault | In | Noticed by |", "|:--|:--|:--|"]
        lines += [row for mutant, row in rows.items() if mutant.room == room]
        lines.append("")
    return "\n".join(lines)


def rows_of(text: str) -> dict[str, str]:
    """The rows of a page, by fault."""
    return {row.split(" | ")[0].removeprefix("| "): row for row in text.splitlines() if " | [" in row}


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", r"\<")


def _source(file: str) -> str:
    return f"[{Path(file).name}](../{file})"


def _killer(result: Result) -> str:
    if not result.killed:
        return SURVIVED
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
    for library in ("torch", "torch_geometric.nn", "dgl", "pandas", "scipy.stats", "sklearn", "hypothesis"):
        with suppress(ImportError):
            importlib.import_module(library)
    results: dict[Mutant, Result] = {}
    with ExitStack() as stack:
        copies = [stack.enter_context(copy_of_the_project()) for _ in range(options.processes)]
        tests = tuple(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
        print(f"{len(chosen)} faults; their {len(tests)} tests without them first", flush=True)
        status, output = outcome_of(copies[0], tests, "-n", str(options.processes), seconds=float("inf"))
        if status:
            print(output[-6000:])
            return 1
        fork = multiprocessing.get_context("fork")
        todo, done = fork.Queue(), fork.Queue()
        for mutant in (*chosen, *[None] * options.processes):
            todo.put(mutant)
        for copy in copies:
            fork.Process(target=work, args=(copy, todo, done), daemon=True).start()
        for number in range(1, len(chosen) + 1):
            mutant, result = done.get()
            if isinstance(result, str):
                print(f"{number} of {len(chosen)}  {result}", flush=True)
                continue
            results[mutant] = result
            what = f"noticed by {result.by}" if result.killed else "SURVIVES"
            print(
                f"{number} of {len(chosen)}, {result.seconds:.1f} s  {mutant.room}: {mutant.fault}: {what}", flush=True
            )
    survivors = [mutant for mutant in chosen if mutant not in results or not results[mutant].killed]
    for mutant in survivors:
        print(f"SURVIVES: {mutant.room}: {mutant.fault} ({mutant.file}; {', '.join(mutant.tests)})")
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults are noticed")
    kept = rows_of(PAGE.read_text()) if options.only and PAGE.exists() else {}
    PAGE.write_text(page(results, kept))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
