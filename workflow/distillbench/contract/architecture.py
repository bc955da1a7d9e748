"""The house of this project: its layers, who imports whom, and the drawing in docs/architecture.md. Imports no torch.

The layers are the order in which a config travels to a page: a package may import those below it, and no two modules
import each other, directly or around. A module that is loaded by its name (a backend, the base class of a plug-in) is
not imported.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

LAYERS = (
    "cli",
    "tracking",
    "report",
    "jobs",
    "figures",
    "tables",
    "statistics",
    "contract",
    "profiling",
    "training",
    "distillation",
    "plan",
    "models",
    "data",
    "config",
    "ground",
)
FACADES = ("plugin", "__main__")  # names for others: they may import any package, and no package imports them
DOCUMENT = Path("docs/architecture.md")
BEGIN, END = "<!-- drawing -->", "<!-- end of the drawing -->"


def imports(package: Path) -> dict[str, set[str]]:
    """For each module of a package the modules of the package that it imports, anywhere in its code."""
    files = {_name(file, package): file for file in package.rglob("*.py")}
    return {name: set(_imported(file, package.name, files)) - {name} for name, file in files.items()}


def _name(file: Path, package: Path) -> str:
    parts = file.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(file: Path, package: str, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == package):
            base = (node.module or "").removeprefix(package).lstrip(".")
            if node.level:  # from the file's own package, or one above it
                root = next(folder for folder in file.parents if folder.name == package)
                above = file.parents[node.level - 1].relative_to(root).parts
                base = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield full if full in known else base
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix(f"{package}.") for a in node.names if a.name.startswith(f"{package}."))


def layer_of(module: str) -> str:
    """The package a module is in; the modules that are in none are the ground."""
    room = module.split(".")[0]
    return room if room in LAYERS else "ground"


def upward(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that go up: (module, what it imports)."""
    rank = {layer: place for place, layer in enumerate(LAYERS)}
    return sorted(
        (module, other)
        for module, others in graph.items()
        if module not in FACADES
        for other in others
        if other in FACADES or rank[layer_of(other)] < rank[layer_of(module)]
    )


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """The modules that import themselves around others."""
    return sorted(module for module in graph if module in _reached(module, graph))


def _reached(module: str, graph: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = [*graph.get(module, ())]
    while todo:
        if (name := todo.pop()) not in found:
            found.add(name)
            todo += graph.get(name, ())
    return found


def drawing(package: Path) -> str:
    """The packages and their imports, in Mermaid: an arrow where no longer way says the same."""
    arrows: dict[str, set[str]] = {layer: set() for layer in LAYERS}
    for module, others in imports(package).items():
        if module not in FACADES:
            arrows[layer_of(module)] |= {layer_of(other) for other in others}
    for layer in LAYERS:
        arrows[layer] -= {layer, "ground"}
    lines = ["```mermaid", "flowchart TD"]
    for layer in LAYERS:
        around = {far for near in arrows[layer] for far in _reached(near, arrows)}
        lines += [f"    {layer} --> {other}" for other in LAYERS if other in arrows[layer] - around]
    return "\n".join([*lines, "```"])


def write_drawing(root: Path, package: Path, *, checking: bool = False) -> int:
    """Put the drawing into the document; or only look whether it is there: 1 where it is not."""
    file = root / DOCUMENT
    text = file.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    new = f"{before}{BEGIN}\n{drawing(package)}\n{END}{rest.split(END)[1]}"
    if not checking:
        file.write_text(new, encoding="utf-8")
    elif new != text:
        print(f"{file}: the drawing is not what the imports say: run distillbench docs")
        return 1
    return 0
