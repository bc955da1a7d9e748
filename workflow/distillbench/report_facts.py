"""What only the plan knows and the report says: config, methods with their papers, how to cite. No torch, no pandas.

The DAG is built with it, so it has to be quick; everything else in the report is read from the results.
"""

import os
from pathlib import Path
from typing import Any

import yaml

from distillbench.catalogue import Page
from distillbench.plan import Plan

CITATION = "CITATION.cff"


def facts_of(plan: Plan) -> dict[str, Any]:
    """What ``report.write_report`` is given besides the results, JSON-able.

    ``config`` has every value, defaults included, so that later defaults do not change what it says; without what
    decides only how and where it runs (``execution``, ``results``).
    """
    files = [os.path.relpath(file) for file in plan.files]  # a folder that is moved as a whole keeps its report
    return {
        "config": plan.config.model_dump(mode="json", exclude={"execution", "results"}),
        "command": " ".join(["snakemake --cores all", *(f"--configfile {file}" for file in files)]),
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
