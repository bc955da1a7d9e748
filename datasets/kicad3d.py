"""KiCad-3D: CAD models of electronic parts as clouds of points from their surface, 35 classes; graph classification.

3,128 models of KiCad's packages3D library (capacitors, connectors, packages ...), 1,024 points each, 615 for the test:
a real stand-in for ModelNet40 that is small and free. A cloud has no edges: models draw k-nearest-neighbour graphs.

Parts that differ only in their number of pins are near-duplicates, and they cross the split: accuracies say how well
methods compare, not how well they generalise. As in ModelNet40, a tenth of the training clouds is for validation.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from distillbench.plugin import (
    DataError,
    Dataset,
    Files,
    GraphData,
    Parameters,
    Split,
    augmented,
    cloud_data,
    clouds,
    reduced,
    sha256,
    with_validation,
)

WHOLE = "d33db95a718a479c3da5a01a7ea42fcc943fc19ac441909bda45086f64b519e5"  # SHA-256 of kicad_cls_f16_1024.npz


class KiCad3D(Dataset):
    """One .npz file: ``points`` [N, P, 3], ``label`` [N], ``test`` [N] bool, ``classes`` [C] names.

    The points of a cloud are in random order, so the first ones are a sample of its surface.
    """

    task, setting, dynamic = "graph-multiclass", "inductive", True
    source = "KiCad packages3D, https://kicad.github.io/packages3d/, sampled to 1,024 points (kicad_cls_f16_1024.npz)"
    licence = "CC-BY-SA-4.0 with KiCad's exception for electronic designs"

    class Params(Parameters):
        """path: the file. points: of a cloud. val: share or number of training clouds for validation.

        train, test: only so many clouds, every class in its share. augment: scale, shift and jitter in training.
        """

        path: str = "data/kicad3d/kicad_cls_f16_1024.npz"
        points: int = Field(default=1024, ge=2)
        val: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1, strict=True)] = 0.1
        train: PositiveInt | None = None
        test: PositiveInt | None = None
        augment: bool = True

    def load(self) -> GraphData:
        """All clouds in the unit sphere, in the order of the file. Raises DataError naming the file."""
        p = self.params
        path = Path(p.path).expanduser()
        if not path.is_file():
            raise DataError(
                f"{path.absolute()}: no such file. It is not downloaded: put it there, "
                "or name it in datasets.<name>.params.path of the config"
            )
        self._digest = sha256(path)
        with Files(path) as files:
            points, label, test, names = (files.array(f"{name}.npy") for name in ("points", "label", "test", "classes"))
        if names.dtype.kind != "U" or names.ndim != 1:
            raise DataError(f"{path}: classes must be names, not {names.dtype} {list(names.shape)}")
        x, y = clouds(points, label, classes=len(names), asked=p.points, where=str(path))
        if test.dtype != bool or test.shape != (len(y),):
            raise DataError(f"{path}: test must be [{len(y)}] bool, not {test.dtype} {list(test.shape)}")
        split = with_validation(y, torch.from_numpy(test), p.val)
        self._sizes = len(split.train), len(split.test)
        small = Split(reduced(split.train, y, p.train, "train"), split.val, reduced(split.test, y, p.test, "test"))
        return cloud_data(x, y, small, names.tolist())

    def augment(self, x: Tensor, ptr: Tensor, random: torch.Generator) -> Tensor:
        """See clouds.augmented."""
        return augmented(x, ptr, random) if self.params.augment else x

    def provenance(self) -> dict[str, Any]:
        """Canonical by the file's digest, where it is not reduced."""
        asked = {"training": self.params.train, "test": self.params.test}
        remarks = [
            f"{number} of {size} {part} clouds"
            for (part, number), size in zip(asked.items(), self._sizes, strict=True)
            if number not in (None, size)
        ]
        name = "small-kicad3d" if remarks else "kicad3d"
        if remarks:
            remarks = ["reduced KiCad-3D: " + ", ".join(remarks)]
        if self._digest != WHOLE:
            remarks.insert(0, "not the file that KiCad-3D is known by (other SHA-256)")
            name = "my-kicad3d"
        return {"canonical": not remarks, "remark": "; ".join(remarks), "name": name, "sha256": self._digest}
