"""Where everything is, below the results folder: defined here and nowhere else. Imports no torch."""

from pathlib import Path
from typing import NamedTuple

from distillbench.params import TEACHER

PACKAGE = Path(__file__).parent
SHOWN = Path("report/shown.json")  # below the results folder: the files there that belong to the run reported last


def home() -> Path:
    """The folder of Snakefile, plug-ins, config/ and profiles/: a checkout's, or the one in the package."""
    checkout = PACKAGE.parents[1]
    return checkout if (checkout / "Snakefile").is_file() else PACKAGE / "shipped"


class Cell(NamedTuple):
    """What is compared within one row group of the tables: a pair on a data set with a library."""

    dataset: str
    backend: str
    pair: str


class Paths:
    """Where everything is, below the results folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def data(self, dataset: str) -> Path:
        """Folder of a data set: data.npz, data.json."""
        return self.root / "data" / dataset

    def runs(self, cell: Cell, method: str) -> Path:
        """Folder of the runs of one method, or of the teacher: seed-*.json, .history.csv, .pt; records-*.json."""
        if method == TEACHER:
            return self.root / "teachers" / Path(*cell)
        return self.root / "runs" / Path(*cell) / method

    def shard(self, cell: Cell, method: str, shard: int) -> Path:
        """The file the DAG declares for one job: the records of its seeds."""
        return self.runs(cell, method) / f"records-{shard}.json"

    def records(self) -> list[Path]:
        """The records of all seeds that there are."""
        return [*self.root.glob("teachers/*/*/*/seed-*.json"), *self.root.glob("runs/*/*/*/*/seed-*.json")]

    def tuning(self, dataset: str, pair: str, method: str) -> Path:
        """The file of the values that were chosen for a method, whatever the library."""
        return self.root / "tuning" / dataset / pair / f"{method}.json"

    @property
    def tuning_runs(self) -> "Paths":
        """Where the runs are that values are chosen by: their teachers, and trials. No table is made of them."""
        return Paths(self.root / "tuning")

    def profile(self, cell: Cell, role: str) -> Path:
        """A model's runtime profile."""
        return self.root / "profiles" / Path(*cell) / f"{role}.json"
