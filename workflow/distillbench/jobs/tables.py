"""What the rules at the end of the DAG do: records to tables. No torch."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distillbench.data.cards import read_card
from distillbench.plan.plan import asked_hyperparameters
from distillbench.predictions import (
    ENDING,
    Part,
    RowScores,
    RunKey,
    agreement,
    read_part,
    read_rows,
    row_scores,
    write_rows,
)
from distillbench.record import Record, RecordError, digest, read_sealed, read_shard
from distillbench.runs import VERSIONED, read_runs, runs_table, write_csv, write_profiles, write_runs
from distillbench.statistics import across, libraries
from distillbench.statistics.compare import compare as compared
from distillbench.statistics.paired import Deltas
from distillbench.statistics.pareto import pareto_table
from distillbench.tables.comparison import write_comparison
from distillbench.tables.profiles import ALWAYS, COLUMNS, profile_row
from distillbench.tables.tuning import footnotes
from distillbench.wording import backend_label

AGAIN = "Delete it and run snakemake again: finished seeds that fit are not trained again."

OTHER_CODE = (
    "trained by other code than is here. Delete it and run snakemake again (all at once: snakemake --forcerun "
    "teacher distill): finished seeds that fit are not trained again. If the edit changes no result and the records "
    "are to be kept, undo it, or make the tables in a checkout of the code that trained them."
)


def collect(
    expected: dict[str, dict[str, Any]],
    skipped: Sequence[dict[str, Any]],
    methods: Sequence[str],
    csv: str,
    parquet: str,
    rows: str,
) -> str:
    """Gather the records of all jobs, and of what could not run here, into the table of runs.

    rows: the file of what each test row adds to the score of each finished run (predictions.write_rows). Records of
    before predictions were stored are in the table without them.

    ``expected`` says for each file of records which seeds and hyper-parameters the config asks for, whether these are
    tuned, and the digest of the code that trains them (Plan.expected).
    Raises RecordError naming every file that cannot be trusted or is of another config: no record is left out or let in
    silently.
    """
    records, problems = [Record(**fields) for fields in skipped], []
    held: dict[str, list[Record]] = {}
    for shard, asked in expected.items():
        try:
            found, hyperparameters = read_shard(Path(shard)), asked_hyperparameters(asked)
        except RecordError as error:
            problems.append(str(error))
            continue
        seeds = [record.seed for record in found]
        if seeds != asked["seeds"]:
            problems.append(f"{shard}: holds seeds {seeds}, the config asks for {asked['seeds']}. {AGAIN}")
        elif any(digest(record.hyperparameters) != hyperparameters for record in found):
            problems.append(f"{shard}: was trained with other hyper-parameters than the config asks for. {AGAIN}")
        elif others := [record.seed for record in found if record.digests.get("code") != asked["code"]]:
            problems.append(f"{shard}: {'seeds' if others[1:] else 'seed'} {', '.join(map(str, others))} {OTHER_CODE}")
        elif any(bool(record.tuning) != ("params" in asked) for record in found):
            # the same values, but readers would be told that they were tuned, or that nobody did
            said, wanted = ("does not say", "tuned") if "params" in asked else ("says", "as they are given")
            problems.append(f"{shard}: {said} that its values were tuned, the config asks for them {wanted}. {AGAIN}")
        records += found
        held[shard] = found
    if problems := problems or _contradictions(held):
        raise RecordError("\n".join(problems))
    scores, agreements, problems = _predictions(held)
    if problems:
        raise RecordError("\n".join(problems))
    runs = runs_table(records, methods, agreements)
    write_runs(runs, Path(csv), Path(parquet))
    write_rows(Path(rows), scores)
    counts = runs["status"].value_counts()
    return f"{len(runs)} runs: {', '.join(f'{count} {status}' for status, count in counts.items())}"


def _predictions(held: dict[str, list[Record]]) -> tuple[dict[RunKey, RowScores], dict[str, float], list[str]]:
    """From the predictions of the finished runs on the test part: row scores, agreement with the teacher by run_id; and
    what is wrong with the files."""
    scores: dict[RunKey, RowScores] = {}
    agreements: dict[str, float] = {}
    problems = []
    teachers: dict[tuple[str, str, str, int], Part] = {}
    ids: dict[bytes, NDArray[np.int64]] = {}  # of many runs: each once
    finished = [(shard, record) for shard, records in held.items() for record in records if record.status == "ok"]
    for shard, record in sorted(finished, key=lambda each: each[1].role != "teacher"):
        if "predictions" not in record.digests:
            continue
        file = Path(shard).parent / f"seed-{record.seed}.{ENDING}"
        pair = (record.dataset, record.backend, record.pair, record.seed)
        try:
            part = read_part(file, expected=record.digests["predictions"], logits=False)
            own = row_scores(part, record.metric)
            if record.role == "teacher":
                teachers[pair] = part
            elif pair in teachers:
                agreements[record.run_id] = agreement(part, teachers[pair])
        except (RecordError, ValueError) as error:
            where = "" if isinstance(error, RecordError) else f"{file}: "
            problems.append(
                f"{where}{error}. Delete {shard} and run snakemake again: that seed alone is trained again."
            )
            continue
        key = (*pair[:3], record.method, record.seed)
        scores[key] = own._replace(rows=ids.setdefault(own.rows.tobytes(), own.rows))
    return scores, agreements, problems


def _contradictions(held: dict[str, list[Record]]) -> list[str]:
    """Files of records that cannot be in one table: of several methods, of runs that another has, of another metric or
    split."""
    problems = []
    runs: dict[tuple[str, ...], str] = {}
    facts: dict[tuple[str, ...], tuple[tuple[object, ...], str]] = {}
    splits: dict[tuple[str, int], tuple[str, str]] = {}
    for shard, records in held.items():
        for record in records:
            cell = (record.dataset, record.backend, record.pair)
            first = records[0]
            if (*cell, record.method) != (first.dataset, first.backend, first.pair, first.method):
                problems.append(f"{shard}: holds {record.run_id} beside {first.run_id}. {AGAIN}")
                break
            if (other := runs.setdefault((*cell, record.method, str(record.seed)), shard)) != shard:
                problems.append(f"{shard}: holds {record.run_id}, which {other} has, too. {AGAIN}")
                break
            if record.status == "ok" and record.test is None:
                problems.append(f"{shard}: {record.run_id}: status ok, but no test value. {AGAIN}")
                break
            own = record.task, record.metric, record.resplit
            known, other = facts.setdefault(cell, (own, shard))
            if own != known:
                said = f"task, metric and resplit are {own}, in {other} {known}"
                problems.append(f"{shard}: {record.run_id}: {said}. {AGAIN}")
                break
            if (split := record.digests.get("split")) is None:
                continue
            of_seed, other = splits.setdefault((record.dataset, record.seed), (split, shard))
            if split != of_seed:  # pairs of runs would be compared on different rows
                problems.append(
                    f"{shard}: {record.run_id}: was trained and tested on another split of seed {record.seed} than in "
                    f"{other}: draw_split of the data set is no function of the seed. Mend it, and run snakemake again."
                )
                break
    return problems


def compare(
    runs: str,
    outputs: dict[str, str],
    cards: Sequence[str],
    tuning: Sequence[str],
    protocols: Sequence[str],
    baseline: str,
    alpha: float,
    delta: Deltas,
    rows: str | None = None,
) -> str:
    """Test every method against the baseline, and the libraries for equivalence; write the tables.

    cards: descriptions of the data sets. tuning: files of chosen hyper-parameters, where the config tunes. protocols:
    sentences on pairs with a protocol of their own. rows: what each test row adds to the score of each run, as
    ``collect`` wrote it; None where there is none, as of runs that were published before.
    """
    frame = read_runs(Path(runs))
    stored = read_rows(Path(rows)) if rows else None
    comparison = compared(frame, stored, baseline=baseline, alpha=alpha, delta=delta)
    equivalence = libraries.equivalence(frame, delta=delta)
    times = libraries.cell_times(frame)
    over_cells = across.across_cells(frame, baseline=baseline, alpha=alpha)
    remarks = [*origins_in_words(cards), *protocols, *footnotes(tuning), *_equivalence_in_words(equivalence)]
    remarks += [*_times_in_words(times), over_cells.sentence, *_versions_in_words(frame)]
    write_comparison(
        comparison,
        csv=Path(outputs["csv"]),
        parquet=Path(outputs["parquet"]),
        html=Path(outputs["html"]),
        tex=Path(outputs["tex"]),
        markdown=Path(outputs["markdown"]),
        alpha=alpha,
        remarks=remarks,
    )
    write_csv(equivalence, Path(outputs["equivalence"]))
    write_csv(times, Path(outputs["times"]))
    write_csv(over_cells.table, Path(outputs["across"]))
    students = comparison[comparison["verdict"] != "control"]
    return f"{len(students)} comparisons: " + ", ".join(
        f"{n} {verdict}" for verdict, n in students["verdict"].value_counts().items()
    )


def origins_in_words(cards: Sequence[str | Path]) -> list[str]:
    """Which data sets are not the ones that published numbers are about."""
    origins = {card.name: card.provenance for card in map(read_card, map(Path, cards))}
    return [
        f"{name}: {about['remark']}; not comparable with published numbers."
        for name, about in origins.items()
        if not about["canonical"]
    ]


def _equivalence_in_words(equivalence: pd.DataFrame) -> list[str]:
    """For each data set and pair, for which methods the two libraries were shown to agree."""
    texts = []
    for (dataset, pair), rows in equivalence.groupby(["dataset", "pair"], sort=False):
        kinds = {
            f"within ±{100 * rows['delta'].iloc[0]:g} points: ": "equivalent within δ",
            "not shown: ": "not shown equivalent",
            "too few seeds: ": "too few seeds",
        }
        said = [
            words + ", ".join(rows.loc[rows["verdict"] == verdict, "method"])
            for words, verdict in kinds.items()
            if (rows["verdict"] == verdict).any()
        ]
        texts.append(f"{dataset}, {pair}: {' · '.join(said)}")
    about = "PyG and DGL equivalent (two one-sided tests over the same seeds)"
    return [f"{about}: {'; '.join(texts)}."] if texts else []


def _times_in_words(times: pd.DataFrame) -> list[str]:
    """How long training took with PyG, in terms of DGL's time, for each data set and pair."""
    known = times.dropna(subset=["time_ratio"]).to_dict("records")
    texts = [
        f"{row['dataset']}, {row['pair']}{_devices_in_words(row)}: {row['time_ratio']:.2f}"
        + ("" if pd.isna(row["time_ratio_low"]) else f" [{row['time_ratio_low']:.2f}, {row['time_ratio_high']:.2f}]")
        for row in known
    ]
    about = "Training time with PyG over that with DGL, median over seeds with its 95% interval, other jobs beside it"
    return [f"{about}: {'; '.join(texts)}."] if texts else []


def _versions_in_words(runs: pd.DataFrame) -> list[str]:
    """Which packages changed between runs, and how many runs each version made; nothing where none did."""
    texts = []
    for name in VERSIONED:
        found = runs["versions"].str.extract(rf"(?:^|; ){name} ([^;]+)")[0].dropna()
        counts = found.value_counts().sort_index()
        if len(counts) > 1:
            texts += [f"{name} " + ", ".join(f"{version} ({n} runs)" for version, n in counts.items())]
    about = "Not all runs were made with the same versions (column versions of runs.csv says which)"
    return [f"{about}: {'; '.join(texts)}."] if texts else []


def _devices_in_words(row: dict[Hashable, Any]) -> str:
    """What the libraries ran on, where that was not the same."""
    if row["device_a"] == row["device_b"]:
        return ""
    named = [f"{backend_label(row[f'backend_{x}'])} on {row[f'device_{x}']}" for x in "ab"]
    return f" ({', '.join(named)})"


def pareto(runs: str, profiles: Sequence[str], csv: str) -> str:
    """What each method scores and costs, and which no other one beats at both. profiles: their table, or none."""
    costs = pd.concat(map(pd.read_csv, profiles)) if profiles else None
    table = pareto_table(read_runs(Path(runs)), costs)
    write_csv(table, Path(csv))
    return f"{len(table)} methods and teachers against what they cost"


def collect_profiles(profiles: Sequence[str], csv: str) -> str:
    """Gather all profiles into one table; ``profile_table.COLUMNS`` says what each column is.

    Raises RecordError naming a file that cannot be read.
    """
    rows = []
    for path in map(Path, profiles):
        try:
            rows.append(profile_row(read_sealed(path, "profile")))
        except KeyError as error:
            raise RecordError(f"{path}: corrupt profile ({error}). Delete it and run snakemake again.") from error
    columns = [name for name in COLUMNS if name in ALWAYS or any(name in row for row in rows)]
    write_profiles([{name: row.get(name) for name in columns} for row in rows], Path(csv))
    return f"{len(rows)} profiles"
