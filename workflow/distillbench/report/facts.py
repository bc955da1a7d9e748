"""What only the plan knows and the report says: config, files, methods with their papers, how to cite. No torch.

The DAG is built with it, so it has to be quick and needs no pandas; everything else is read from the results.
"""

import os
import shlex
from pathlib import Path
from typing import Any

import yaml

from distillbench.config.config import Config
from distillbench.config.variants import Part
from distillbench.contract.catalogue import Page
from distillbench.params import search_space
from distillbench.plan.figures import ENDINGS, STRUCTURE, figure_files
from distillbench.plan.plan import Plan

CITATION = "CITATION.cff"


def facts_of(plan: Plan) -> dict[str, Any]:
    """What ``report.write_report`` is given besides the results, JSON-able.

    ``shown`` names the files, below the results folder, that belong to this config: a table or a figure of an earlier
    one may still lie beside them.
    """
    files = [os.path.relpath(file) for file in plan.files]  # a folder that is moved as a whole keeps its report
    return {
        "config": whole_config(plan),
        "command": shlex.join(["snakemake", "--cores", "all", *(["--configfile", *files] if files else [])]),
        "shown": shown_files(plan),
        "runs": plan.runs,
        "pairs": [
            {
                "dataset": dataset,
                "pair": name,
                "teacher": pair.teacher.model_dump(mode="json"),
                "teachers": {other: spec.model_dump(mode="json") for other, spec in pair.teachers.items()},
                "student": pair.student.model_dump(mode="json"),
            }
            for dataset, entry in plan.config.datasets.items()
            for name, pair in entry.pairs.items()
        ],
        "methods": [_method(plan, name) for name in plan.methods],
        "missing": plan.missing,
        "remarks": plan.remarks(),
        "cite": _cite(plan.root / CITATION),
    }


def whole_config(plan: Plan) -> dict[str, Any]:
    """The config with every value in it that decides a result: it plans the same jobs, whatever later defaults are.

    Left out are an absolute ``results``, which is a folder of one machine, ``export``, which is somebody's own, and how
    it runs (``execution``, but for the time budget, which decides which runs time out, and the seeds of a job, which
    name the files).
    """
    values = plan.config.model_dump(mode="json")
    for name, entry in values["datasets"].items():
        entry["params"] = plan.dataset_params(name).model_dump(mode="json")
    values["methods"] = {name: _whole_method(plan, name) for name in plan.methods}
    values["execution"] = {key: values["execution"][key] for key in ("seeds_per_job", "run_seconds")}
    left_out = {"export", *(["results"] if Path(plan.config.results).is_absolute() else [])}
    return {key: values[key] for key in Config.model_fields if key not in left_out}


def _whole_method(plan: Plan, name: str) -> dict[str, Any]:
    """An entry under ``methods`` with all hyper-parameters, but for those that something else decides."""
    parts, given = plan.variant(name).parts, plan.config.methods[name]
    file = {"method": given["method"]} if "method" in given else {}
    values = {part.name: _whole_part(plan, part) for part in parts}
    return file | (values if len(parts) > 1 else values[parts[0].name])


def _whole_part(plan: Plan, part: Part) -> dict[str, Any]:
    # what is given is not searched, and comes before a pair's layers: what was not given must stay so
    open_ = set(search_space(part.declared.params)) if plan.config.tune else set()
    if any(pair.layers for entry in plan.config.datasets.values() for pair in entry.pairs.values()):
        open_.add("layers")
    values = part.params().model_dump(mode="json")
    return {key: value for key, value in values.items() if key in part.given or key not in open_}


def shown_files(plan: Plan) -> list[str]:
    """What the config makes for people to look at, below the results folder, by its name there.

    Pictures of the feature space are made only when asked for, and may not be there.
    """
    structure = [
        f"figures/{STRUCTURE.name(place)}.{ending}"
        for place in STRUCTURE.places(plan.structure_cells())
        for ending in ENDINGS
    ]
    made = [Path(file).relative_to(plan.paths.root).as_posix() for file in (*plan.table_files(), *figure_files(plan))]
    return [*made, *structure]


def _method(plan: Plan, name: str) -> dict[str, Any]:
    """A variant: its hyper-parameters where no pair changes them, and title and citation of each of its parts."""
    parts = plan.variant(name).parts
    pages = [Page(part.declared, {}) for part in parts]
    return {
        "name": name,
        "params": plan.variant(name).params(),
        "parts": [
            {"name": part.name, "paper": str(part.declared.attributes.get("paper", "")), "title": page.title}
            | {"citation": page.citation}
            for part, page in zip(parts, pages, strict=True)
        ],
    }


def _cite(path: Path) -> dict[str, Any]:
    """What CITATION.cff says of this software and of what it builds on; empty where there is none."""
    if not path.is_file():
        return {}
    cff = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        "message": cff["message"],
        "software": _reference(cff),
        "references": [_reference(each) for each in cff.get("references", [])],
    }


def _reference(entry: dict[str, Any]) -> str:
    """One entry of CITATION.cff as people write it: authors: title. Venue, year. Identifiers."""
    authors = ", ".join(
        each.get("name") or f"{each['given-names']} {each['family-names']}" for each in entry["authors"]
    )
    where = [entry.get("conference", {}).get("name"), entry.get("journal"), entry.get("year")]
    where += [f"Version {entry['version']}" if "version" in entry else None]
    venue = ", ".join(str(each) for each in where if each)
    identifiers = [each["value"] for each in entry.get("identifiers", [])]
    return ". ".join(filter(None, [f"{authors}: {entry['title']}", venue, ", ".join(identifiers)])) + "."
