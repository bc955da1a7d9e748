"""Data cards: what a prepared data set is, beside its arrays. Imports no torch."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from distillbench.record import Count, RecordError, read_sealed, write_sealed


class Card(BaseModel):
    """The description of a data set: ``name`` as in the config, ``dataset`` the plug-in's, ``digest`` of the arrays.

    provenance: what is known of the data's origin (Dataset.provenance), ``canonical`` and ``remark`` at least.
    warnings: what a reader of results should know of features and graph, a sentence each. files: marks of those that it
    was read from (Sources.data_marks). published_splits: how many the seeds are dealt; 0: each seed's is drawn;
    None: the card is of an earlier version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    dataset: str
    source: str
    licence: str
    params: dict[str, Any]
    provenance: dict[str, Any]
    task: str
    metric: str
    setting: str
    resplit: bool  # the split changes with the seed
    published_splits: Count | None = None
    nodes: Count
    edges: Count
    graphs: Count
    features: Count
    classes: Count
    digest: str
    warnings: list[str] = []
    files: list[str] = []

    @field_validator("provenance")
    @classmethod
    def _says_whether_canonical(cls, provenance: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(provenance.get("canonical"), bool) or not isinstance(provenance.get("remark"), str):
            raise ValueError("says neither whether the data are canonical, nor a remark")
        return provenance


def split_in_words(card: Card) -> str:
    """What the runs of a data set are split by, as sentences have it: "on cora, its public split"."""
    if card.published_splits is None:
        return "splits that change with the seed" if card.resplit else "its public split"
    if card.published_splits > 1:
        return f"its {card.published_splits} published splits"
    return "its public split" if card.published_splits else "random splits"


def write_card(path: Path, card: Card) -> None:
    """Write a card with its checksum, atomically."""
    write_sealed(path, card.model_dump(mode="json"))


def read_card(path: Path) -> Card:
    """Read what ``write_card`` wrote. Raises RecordError naming the file where it is missing, altered or another's."""
    try:
        return Card(**read_sealed(path, "data card"))
    except (OSError, ValidationError) as error:
        wrong = error.errors()[0] if isinstance(error, ValidationError) else None
        reason = f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" if wrong else str(error)
        raise RecordError(
            f"{path}: not the card of a data set ({reason}). Delete it and run snakemake again: the data are prepared "
            "anew, and finished seeds are not trained again."
        ) from error
