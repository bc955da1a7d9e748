"""What YAML allows and a config may not have: said before the values are looked at. Imports no torch.

Snakemake reads a config by a safe loader, to which the last of two equal keys is the one that counts, whose aliases can
stand for more values than memory holds, and which evaluates Python where a file has the key ``__use_yte__``.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from distillbench.config.config import ConfigError

DEPTH = 50  # of lists and mappings; ours are ten deep
ALIASED = 100_000  # values that the aliases of a file stand for
SOURCES = ("workflow", "methods", "datasets", "models", "config", "profiles", "docs", "tests", "benchmarks", ".git")
_YTE = "__use_yte__"


@dataclass
class _Level:
    is_mapping: bool
    anchor: str | None
    keys: set[str] = field(default_factory=set)
    items: int = 0  # keys and values so far
    size: int = 1  # values in it, aliases followed


def problem_of(path: Path) -> str | None:
    """The first thing wrong with a config file, with its line; None where there is nothing.

    A file that is no YAML has no problem here: Snakemake names it. It is read event by event, so that no nesting is too
    deep and nothing that an alias stands for is made.
    """
    try:
        return next(_problems(path.read_text(encoding="utf-8")), None)
    except yaml.YAMLError:
        return None


def read_values(file: Path) -> dict[str, Any]:
    """The keys and values of a config's file. Raises ConfigError naming it."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: not a config: no keys")
    return values


def folder_problem(results: str, plugins: Sequence[str], export: str | None, root: Path) -> str | None:
    """What is wrong with the folders that a config names; ``root``: the project, whose own files no result replaces."""
    named = [("results", results), *(("plugins", each) for each in plugins), *([("export", export)] if export else [])]
    for key, given in named:
        if not given.isprintable() or not given.strip() or set(given) & set("{}*?"):
            return f"{key}: {given!r}: a folder's name has no control characters, no braces and no wildcards"
        if key == "export" and "://" in given:
            continue
        if key == "export" and not Path(given).is_absolute():
            return f"export: {given!r}: neither an address such as s3://bucket/folder nor an absolute folder"
        try:
            found = Path(given).resolve()
            is_folder = found.is_dir()
        except (OSError, RuntimeError) as error:  # the latter: links that lead round in a circle, up to Python 3.12
            return f"{key}: {given!r}: {getattr(error, 'strerror', error)}"
        if key == "plugins" and not is_folder:
            return f"plugins: {given!r}: {found} is no folder"
        own = root.resolve()
        if key != "plugins" and (found == own or found in own.parents or _is_source(found, own)):
            return f"{key}: {given!r}: {found} holds the project's own files; name another folder"
        if key == "export" and found.is_relative_to(Path(results).resolve()):
            return f"export: {given!r}: {found} is in the results folder; name another folder"
    return None


def copies_problem(export: str | None) -> str | None:
    """What this machine lacks to copy results to a folder: Snakemake's plugin for folders calls rsync at the end."""
    if not export or "://" in export or shutil.which("rsync"):
        return None
    return (
        f"export: {export!r}: copies to a folder are made by rsync, which is not installed: apt-get install rsync, or"
        " leave them out (export: null)"
    )


def _is_source(folder: Path, root: Path) -> bool:
    return any(folder.is_relative_to(root / name) for name in SOURCES)


def _problems(text: str) -> Iterator[str]:
    levels: list[_Level] = []
    sizes: dict[str, int] = {}
    aliased = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        size = 1
        if isinstance(event, yaml.CollectionStartEvent):
            levels.append(_Level(isinstance(event, yaml.MappingStartEvent), event.anchor))
            if len(levels) > DEPTH:
                yield f"line {line}: nested more than {DEPTH} levels deep"
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            ended = levels.pop()
            size, anchor = ended.size, ended.anchor
        elif isinstance(event, yaml.AliasEvent):
            if (known := sizes.get(str(event.anchor))) is None:
                yield f"line {line}: *{event.anchor} stands for nothing before it, or for what it is in"
            size, anchor = known or 0, None
            aliased += size
            if aliased > ALIASED:
                yield f"line {line}: *{event.anchor}: aliases stand for more than {ALIASED:,} values"
        elif isinstance(event, yaml.ScalarEvent):
            anchor = event.anchor
            if levels and levels[-1].is_mapping and levels[-1].items % 2 == 0:
                if event.value in levels[-1].keys:
                    yield f"line {line}: the key {event.value!r} is there twice; the first would be ignored"
                if event.value == _YTE and len(levels) == 1:
                    yield f"line {line}: {_YTE}: a config is not a template"
                levels[-1].keys.add(event.value)
        else:
            continue
        if anchor:
            sizes[anchor] = size
        if levels:
            levels[-1].items += 1
            levels[-1].size += size
