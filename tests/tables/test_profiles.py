"""The table of profiles as a reader sees it: legible figures, flags, and reasons where there is none."""

from pathlib import Path

import pandas as pd
import pytest

from distillbench.jobs.tables import collect_profiles
from distillbench.record import RecordError, write_sealed
from distillbench.report.publish import _costs
from distillbench.report.tables import profiles_tables, read_table
from distillbench.runs import write_csv
from distillbench.statistics.pareto import pareto_table
from distillbench.tables.profiles import COLUMNS, SIZE, SPEED, notes, profile_row

PROFILE = {
    "dataset": "toy", "backend": "pyg", "pair": "gat", "role": "student", "model": {"model": "mlp", "hidden": 4},
    "parameters": 37456, "weights_bytes": 149824, "file_bytes": 153900, "reads_graph": False, "batch_nodes": 1797,
    "batch_graphs": 1, "batch_edges": 26477, "dense_flops": 132489216, "edge_flops": 13900000, "graph_nodes": 1797,
    "latency_ms": 4.513, "latency_q25_ms": 3.95, "latency_q75_ms": 4.99, "graph_latency_ms": 4.513,
    "graph_latency_q25_ms": 3.95, "graph_latency_q75_ms": 4.99, "throughput_of": "nodes",
    "throughput_per_second": 398697.4, "peak_memory_mb": 1.36, "train_seconds_per_epoch": 0.0213,
    "repeat_difference": 0.034, "mistrusted": [], "repeats": {"latency_ms": [4.5, 4.6]},
    "exported_status": "ok", "exported_difference": 0.0, "exported_latency_ms": 3.2, "exported_latency_q25_ms": 3.1,
    "exported_latency_q75_ms": 3.3, "environment": {"device": "cpu", "threads": 2, "machine": "x86_64", "torch": "2"},
}  # fmt: skip


def row(**changes):
    return profile_row(PROFILE | changes)


def text(column, columns=SPEED, **changes):
    return columns[column](row(**changes))


def test_every_column_is_explained_and_the_file_has_their_order():
    assert list(row()) == [name for name in COLUMNS if name in row()]
    assert set(row()) == set(PROFILE) - {"environment", "repeats"} | {"device", "threads", "machine"}
    assert all(COLUMNS.values())


def test_figures_have_units_in_their_headings_and_quartiles_beside_them():
    assert text("Batch, ms (quartiles)") == "4.51 (3.95–4.99)"
    assert text("Per second") == "398,697 nodes"
    assert text("Peak memory, MB") == "1.4" and text("Epoch, s") == "0.0213" and text("Passes differ") == "3%"
    assert text("File, kB", SIZE) == "153.9" and text("MFLOP, dense + edges", SIZE) == "132.5 + 13.9"
    assert text("Device") == "cpu, 2 threads" and text("Reads the graph", SIZE) == "no"


def test_unknown_operations_of_message_passing_are_said_to_be():
    own = {name: value for name, value in PROFILE.items() if name != "edge_flops"}  # of a plug-in that does not say
    assert SIZE["MFLOP, dense + edges"](profile_row(own)) == "132.5 + ?"


def test_one_graph_that_is_the_batch_is_not_told_twice():
    assert text("One graph, ms") == "same"
    other = {"graph_latency_ms": 0.512, "graph_latency_q25_ms": 0.5, "graph_latency_q75_ms": 0.53}
    assert text("One graph, ms", **other, batch_graphs=32) == "0.51"


def test_a_figure_that_is_not_to_be_trusted_has_a_dagger_and_no_other_has():
    flagged = row(mistrusted=["latency_ms", "peak_memory_mb"], repeat_difference=0.412)
    shown = {name: write(flagged) for name, write in SPEED.items()}
    assert {name for name, cell in shown.items() if "†" in cell} == {
        "Batch, ms (quartiles)", "Per second", "Peak memory, MB",
    }  # fmt: skip
    assert shown["Passes differ"] == "41%"
    (note,) = (each for each in notes([flagged, row(role="teacher")]) if "two passes" in each)
    assert "† The two differ by more than 10% and more than can be resolved (0.3 MB, 0.2 ms), or one has no" in note
    agree = "agree within 10%, or by less than can be resolved (0.3 MB, 0.2 ms), everywhere."
    assert any(agree in each for each in notes([row()]))


def test_a_machine_that_was_busy_before_is_named():
    told = notes([row(busy_before_percent=34.6), row(role="teacher", busy_before_percent=20.0)])
    (note,) = (each for each in told if "Other processes" in each)
    assert "toy gat PyG student: 35% of all cores were in use before" in note


def test_a_program_for_one_size_has_its_figure_and_says_so():
    only = row(exported_status="for 1797 nodes only")
    assert SPEED["Exported, ms"](only) == "3.20"
    assert "Exported: toy gat PyG student: for 1797 nodes only." in notes([only])
    assert not any(each.startswith("Not exported") for each in notes([only]))


def test_what_met_a_limit_is_shown_without_its_figures_and_with_the_reason():
    gone = ("latency_ms", "graph_latency_ms", "throughput_per_second", "train_seconds_per_epoch")
    failed = row(**dict.fromkeys(gone), inference_status="out of memory", training_status="DivergedError: epoch 1")
    speed, _ = profiles_tables(pd.DataFrame([row(role="teacher"), failed]))
    assert [dict(zip(speed.columns, line.texts, strict=True))["Epoch, s"] for line in speed.lines] == ["0.0213", "–"]
    assert "Not all of inference measured: toy gat PyG student: out of memory." in speed.notes
    assert "Training not measured: toy gat PyG student: DivergedError: epoch 1." in speed.notes


def test_what_was_not_measured_says_why():
    failed = {"exported_latency_ms": None, "exported_status": "UserError: no", "exported_difference": None}
    assert text("Exported, ms", **failed) == "not possible"
    assert text("Exported, ms", **failed | {"exported_difference": 0.2}) == "outputs differ"
    several = [row(**failed), row(**failed, backend="dgl"), row(energy_status="codecarbon is not installed")]
    assert "Not exported: toy gat PyG student; toy gat DGL student: UserError: no." in notes(several)
    assert "No energy: toy gat PyG student: codecarbon is not installed." in notes(several)
    assert text("Exported, ms", role="teacher", exported_latency_ms=None, exported_status=None) == "–"
    assert text("Energy, J") == "–" and text("Energy, J", energy_joules=0.4567) == "0.457"


def test_columns_that_say_nothing_are_left_out():
    speed, size = profiles_tables(pd.DataFrame([row()]))
    assert "Exported, ms" in speed.columns and not {"ONNX, ms", "Energy, J"} & set(speed.columns)
    assert "MFLOP, dense + edges" in size.columns


def skipped(role):
    where = {"dataset": "toy", "backend": "dgl", "pair": "gat", "role": role}
    return where | {"model": {"model": "gcn"}, "skipped": "dgl: ImportError: no GraphBolt"}


def test_skipped_profiles_have_no_row_and_a_note():
    both = [profile_row(skipped(role)) for role in ("teacher", "student")]
    note = "Not measured: toy gat DGL teacher, student: dgl: ImportError: no GraphBolt."
    speed, _ = profiles_tables(pd.DataFrame([row(), *both]))
    assert len(speed.lines) == 1 and note in speed.notes
    alone = profiles_tables(pd.DataFrame(both))
    assert not any(table.lines for table in alone) and alone[0].notes == [note]


def test_where_every_profile_was_skipped_the_scores_are_compared_all_the_same(tmp_path):
    files = []
    for role in ("teacher", "student"):
        files.append(str(tmp_path / f"{role}.json"))
        write_sealed(Path(files[-1]), skipped(role))
    collect_profiles(files, str(tmp_path / "profiles.csv"))
    run = {
        "dataset": "toy", "backend": "dgl", "pair": "gat", "method": "kd", "role": "student", "seed": 0, "status": "ok",
        "metric": "accuracy", "test": 0.5, "params": 10.0, "train_seconds": 1.0, "device": "cpu", "threads": 1,
        "reason": "", "resplit": False, "n_train": 5, "n_test": 5,
    }  # fmt: skip
    table = pareto_table(pd.DataFrame([run]), pd.read_csv(tmp_path / "profiles.csv"))
    assert table["latency_ms"].isna().all() and table["peak_memory_mb"].isna().all()
    assert table["score"].tolist() == [0.5] and table["on_frontier_parameters"].tolist() == [True]
    assert profiles_tables(read_table(tmp_path / "profiles.csv"))[0].notes[0].startswith("Not measured: toy gat DGL")


def test_a_table_that_was_measured_once_is_read_as_it_is(tmp_path):
    old = {name: row()[name] for name in ("dataset", "backend", "pair", "role", "model", "parameters", "reads_graph")}
    old |= {name: row()[name] for name in row() if name.startswith(("latency", "throughput", "peak", "device"))}
    write_csv(pd.DataFrame([old]), tmp_path / "profiles.csv")
    speed, size = profiles_tables(read_table(tmp_path / "profiles.csv"))
    assert speed.columns[4:] == ["Batch, ms (quartiles)", "Per second", "Peak memory, MB"]
    assert size.columns[4:] == ["Model", "Parameters", "Reads the graph"] and speed.notes == size.notes == []


def test_the_document_has_both_tables_and_their_notes(tmp_path):
    write_csv(pd.DataFrame([row(dataset="a|b", mistrusted=["latency_ms"])]), tmp_path / "profiles.csv")
    lines = _costs(tmp_path / "profiles.csv").splitlines()
    assert lines[0].startswith("| Data set | Pair |") and lines[1].startswith("|:---|:---|")
    assert r"a\|b" in lines[2] and "4.51 (3.95–4.99) †" in lines[2]
    assert sum(line.startswith("| Data set |") for line in lines) == 2
    assert any(line.startswith("- Everything was measured in two passes") for line in lines)


def test_a_profile_without_a_model_is_corrupt(tmp_path):
    write_sealed(tmp_path / "student.json", {"dataset": "toy"})
    with pytest.raises(RecordError, match=r"student\.json: corrupt profile"):
        collect_profiles([str(tmp_path / "student.json")], str(tmp_path / "profiles.csv"))


def test_an_altered_profile_is_named(tmp_path):
    """Fault: a stored profile is altered or damaged.

    Provoked: a number in it is changed; it holds another kind of JSON.
    Promised: it is refused by its name with what to do.
    """
    file = tmp_path / "student.json"
    write_sealed(file, skipped("student") | {"params": 10})
    for text in (file.read_text().replace("10", "11"), "[]", "null", '"a"', "[1]", ""):
        file.write_text(text)
        with pytest.raises(RecordError, match=r"student\.json: corrupt .*run snakemake again"):
            collect_profiles([str(file)], str(tmp_path / "profiles.csv"))
