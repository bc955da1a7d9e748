"""``distillbench check``, ``new``, ``list`` and ``docs``: methods, data sets and models as files."""

import re
from collections.abc import Sequence
from pathlib import Path

import click

from distillbench.cli.names import names_of
from distillbench.paths import home


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--backend", "backends", multiple=True, type=click.Choice(["pyg", "dgl", "csr"]), help="With these libraries."
)
def check(files: Sequence[Path], backends: Sequence[str]) -> int:
    """Check the file of a method, a data set or a model: whether it keeps the contract, and where it does not.

    \b
    distillbench check my_methods/lskd.py
    """
    if not __debug__:
        raise click.UsageError("python -O leaves out what is checked")
    from distillbench.contract.check import check_files

    return check_files(files, tuple(dict.fromkeys(backends)))


@click.command()
@click.argument("kind", type=click.Choice(["method", "dataset", "model"]))
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), help="Where (default: methods/, datasets/ or models/ here).")
def new(kind: str, name: str, folder: Path | None) -> int:
    """Begin the file of a method, a data set or a model from the template.

    \b
    distillbench new method lskd --folder my_methods
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name):
        raise click.BadParameter(
            f"{name!r}: small letters, digits and _, as a file of Python is called", param_hint="NAME"
        )
    plural = f"{kind}s"
    file = (folder or Path(plural)) / f"{name}.py"
    from distillbench.config.specs import MODELS

    if file.exists() or name in (*names_of(plural), *(MODELS if kind == "model" else ())):
        raise click.BadParameter(f"{name!r}: there is such a {kind}", param_hint="NAME")
    text = (home() / plural / "_template.py").read_text(encoding="utf-8")
    # what only the template is
    text = re.sub(r"\nA template: .*?(?=[.] |\n\n|\n?\"\"\"|[.]\n)[.]?[ \n]?", "\n", text, count=1, flags=re.DOTALL)
    text = text.replace("model: NAME", f"model: {name}")
    title = "".join(part.capitalize() for part in name.split("_"))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(re.sub(r"^class \w+\(", f"class {title}(", text, count=1, flags=re.MULTILINE), encoding="utf-8")
    click.echo(f"{file}\nNext: edit it, then distillbench check {file}")
    if file.parent.resolve() not in {(root / plural).resolve() for root in (Path(), home())}:
        click.echo(f"In the config: plugins: [{file.parent}]")
    return 0


@click.command("list")
@click.argument("what", type=click.Choice(["methods", "datasets", "models"]))
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="And those of this folder.",
)
def list_(what: str, folders: Sequence[Path]) -> int:
    """List what there is, a line each, with the tasks it is for."""
    rows = _declared(what, folders)
    if what == "models":
        from distillbench.config.specs import ABOUT

        rows = [(name, tasks, title) for name, (tasks, title) in ABOUT.items()] + rows
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:2]]
    for name, tasks, title in rows:
        click.echo(f"{name:{widths[0]}}  {tasks:{widths[1]}}  {title}")
    return 0


def _declared(what: str, folders: Sequence[Path]) -> list[tuple[str, str, str]]:
    import ast

    from distillbench.plugins import Kind, PluginError, available, declaration, kind_of

    kinds: dict[str, Kind] = {"methods": "method", "datasets": "dataset", "models": "model"}
    rows = []
    places = list(
        dict.fromkeys((*(folder.resolve() for folder in folders), Path(what).resolve(), (home() / what).resolve()))
    )
    for name in available(places):
        file = next(path for folder in places if (path := folder / f"{name}.py").is_file())
        if what == "models" and kind_of(file) is None:  # a folder of that name may be about anything
            continue
        try:
            declared = declaration(kinds[what], file)
        except PluginError as error:  # of one file: the others are listed
            rows.append((name, "–", f"cannot be read: {error}"))
            continue
        tasks = [f"{declared.task}, {declared.setting}"] if what == "datasets" else sorted(declared.tasks)
        title = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        rows.append((name, ", ".join(tasks), title))
    return rows


@click.command()
@click.option("--check", "checking", is_flag=True, help="Write nothing; fail where a page is out of step.")
def docs(checking: bool) -> int:
    """Write docs/methods.md from the methods' files, and the drawing in docs/architecture.md from the imports."""
    if not (Path("docs/architecture.md").is_file() and Path("Snakefile").is_file()):
        raise click.ClickException(f"{Path.cwd()}: no checkout of distillbench, whose pages these are")
    from distillbench.contract.architecture import write_drawing
    from distillbench.contract.catalogue import write_catalogue
    from distillbench.paths import PACKAGE

    return max(write_catalogue(Path(), checking=checking), write_drawing(Path(), PACKAGE, checking=checking))


COMMANDS = (check, new, list_, docs)
