"""Names that a command takes, and their completion: methods, data sets, pairs, configs."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from distillbench.config.config import ConfigError
from distillbench.config.yaml_files import read_values
from distillbench.params import suggestion
from distillbench.paths import home
from distillbench.plugins import available

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def config_file(name: str | None) -> Path:
    """The file of a config: a path, or the name of one in config/, here or as shipped; config/config.yaml by default.

    Raises ConfigError naming the nearest.
    """
    name = name or "config"
    places = [Path(name), *(folder / "config" / f"{name}.yaml" for folder in (Path(), home()))]
    for place in places:
        if place.is_file():
            return place
    if Path(name).is_dir():
        raise ConfigError(f"{name}: a folder, not a config")
    raise ConfigError(f"{name}: no such config{suggestion(name, config_names())}")


def config_names() -> list[str]:
    """Names of the configs here, and of those shipped."""
    folders = {folder.resolve(): folder / "config" for folder in (Path(), home())}
    found = {str(f.relative_to(d).with_suffix("")) for d in folders.values() for f in d.rglob("*.yaml")}
    return sorted(found)


def names_of(kind: str, plugins: Iterable[str] = ()) -> list[str]:
    """Names of the plug-ins of a kind ("methods", "datasets", "models"): here, as shipped and in other folders."""
    folders = (*(folder / kind for folder in {Path().resolve(), home().resolve()}), *map(Path, plugins))
    return available(folders)


def _of_config(key: str) -> Complete:
    """Those of the config that the command names, or all that there are."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            values = read_values(config_file(ctx.params.get("config")))
            known = list(values.get(key) or ())
            if key == "pairs":
                known = [pair for entry in values["datasets"].values() for pair in entry["pairs"]]
        except (ConfigError, KeyError, AttributeError, TypeError):
            known = []
        known += names_of(key) if key in ("methods", "datasets") else []
        return [CompletionItem(name) for name in dict.fromkeys(known) if name.startswith(incomplete)]

    return complete


def _configs(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in config_names() if name.startswith(incomplete)] or [
        CompletionItem(incomplete, type="file")
    ]


def _split(ctx: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name for value in values for name in value.split(",") if name)
    if values and not names and not ctx.resilient_parsing:  # as completion parses
        raise click.BadParameter("names nothing")
    return names


CONFIG = click.argument("config", required=False, shell_complete=_configs)


def several(name: str, key: str, about: str) -> Callable[..., Any]:
    """An option that takes names, by comma or given again."""
    return click.option(
        f"--{name}", key, multiple=True, callback=_split, metavar="NAME", shell_complete=_of_config(key), help=about
    )
