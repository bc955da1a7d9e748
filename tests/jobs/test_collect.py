"""Which records enter the table of runs."""

import pandas as pd
import pytest

from distillbench.jobs.tables import collect
from distillbench.record import Record, RecordError, digest, write_shard

KNOWN = {
    "key": "k", "dataset": "digits", "backend": "pyg", "pair": "gat", "method": "lsp", "role": "student",
    "status": "ok", "task": "multiclass", "metric": "accuracy", "val": 0.5, "test": 0.5,
}  # fmt: skip


@pytest.fixture
def gathered(tmp_path):
    """Collect one shard of seeds, each trained by the code named for it, where "new" is the code that is here."""

    def gather(*codes):
        shard = tmp_path / "records-0.json"
        digests = [{"data": "d", **({"code": code} if code else {})} for code in codes]
        write_shard(shard, [Record(**KNOWN, seed=seed, digests=each) for seed, each in enumerate(digests)])
        asked = {"seeds": list(range(len(codes))), "code": "new", "hyperparameters": digest({})}
        files = [str(tmp_path / name) for name in ("runs.csv", "runs.parquet", "rows.npz")]
        return collect({str(shard): asked}, [], ["lsp"], *files)

    return gather


def test_records_of_the_code_that_is_here_are_gathered(gathered, tmp_path):
    assert gathered("new", "new") == "2 runs: 2 ok"
    assert list(pd.read_parquet(tmp_path / "runs.parquet")["seed"]) == [0, 1]


@pytest.mark.parametrize(
    "codes, whose",
    [(("new", "old", "new"), "seed 1"), (("old", "older"), "seeds 0, 1"), (("new", None), "seed 1")],
    ids=["one seed", "all seeds", "a record that does not say"],
)
def test_records_of_other_code_are_named_with_what_to_do_and_no_table_is_written(gathered, tmp_path, codes, whose):
    with pytest.raises(RecordError) as error:
        gathered(*codes)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'records-0.json'}: {whose} trained by other code than is here. Delete it")
    assert "snakemake --forcerun teacher distill" in text and "undo it" in text
    assert not list(tmp_path.glob("runs.*"))
