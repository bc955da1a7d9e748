"""Cards of data sets that were never prepared."""

from typing import Any

from distillbench.data.cards import Card

DIGITS: dict[str, Any] = {
    "name": "digits", "dataset": "digits", "source": "made here", "licence": "MIT", "params": {},
    "provenance": {"canonical": True, "remark": ""}, "task": "multiclass", "metric": "accuracy",
    "setting": "transductive", "resplit": True, "nodes": 1797, "edges": 20000, "graphs": 1, "features": 64,
    "classes": 10, "digest": "0123456789abcdef",
}  # fmt: skip


def card_of(**fields: Any) -> Card:
    """That of digits, but for these fields."""
    return Card(**{**DIGITS, **fields})
