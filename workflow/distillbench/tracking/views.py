"""Views of an experiment in the MLflow page: its columns, and one of each library, grouped by method.

By itself the page's table shows no metric, and grouping and filtering take five clicks and a query. A view is a tag of
the experiment (MLflow 3.17): opened by its key in the address, or, where it has a name, by "Views" above the table.
"""

import json
from collections.abc import Iterable
from typing import Any

from distillbench.record import Record
from distillbench.wording import backend_label

VIEW = "results"
PREFIX = "mlflow.sharedViewState."
VIEW_TAG = f"{PREFIX}{VIEW}"
TAG_LENGTH = 5000  # characters, MLflow's limit for an experiment
COLUMNS = [*(f"metrics.`{name}`" for name in ("val", "test", "best_epoch", "train_seconds")), "tags.`status`"]


def view_tags(records: Iterable[Record]) -> dict[str, str]:
    """Tags of the experiment of a data set with these runs: the view of all of them, and "PyG by method" and the like.

    In a library's view the runs of a method (of one pair, where there are several) are folded into one line with their
    averages, the best first.
    """
    tags = {VIEW_TAG: json.dumps({"selectedColumns": COLUMNS})}
    runs = list(records)
    by = ["pair", "method"] if len({run.pair for run in runs}) > 1 else ["method"]
    for place, backend in enumerate(sorted({run.backend for run in runs})):
        groups = sorted({tuple(getattr(run, name) for name in by) for run in runs if run.backend == backend})
        folded = [",".join(f"tag.{n}.{value}" for n, value in zip(by, group, strict=True)) for group in groups]
        keys = [{"mode": "tag", "groupByData": name} for name in by]
        state = {
            "searchFilter": f"tags.backend = '{backend}'",
            "groupBy": {"aggregateFunction": "average", "groupByKeys": keys},
            "groupsExpanded": dict.fromkeys(folded, False),
            "orderByKey": "metrics.`test`",
            "orderByAsc": False,
            "selectedColumns": COLUMNS,
        }
        name = f"{backend_label(backend)} by {' and '.join(by)}"
        tag = _named(name, place, state)
        if len(tag) > TAG_LENGTH:  # too many groups to fold each
            tag = _named(name, place, state | {"groupsExpanded": {}})
        tags[f"{PREFIX}{backend}"] = tag
    return tags


def _named(name: str, place: int, state: dict[str, Any]) -> str:
    """The tag of a view in the page's list, where a later ``place`` stands first: the page takes it for the newest."""
    # no time of now: every sync would write the tag anew
    return json.dumps({"name": name, "createdAt": place, "updatedAt": place, "state": json.dumps(state)})
