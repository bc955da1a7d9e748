"""ModelNet40: CAD models of 40 kinds of things as clouds of points from their surface; graph classification.

Wu, Song, Khosla, Yu, Zhang, Tang, Xiao: 3D ShapeNets: A Deep Representation for Volumetric Shapes. CVPR 2015. Clouds:
Qi, Su, Mo, Guibas: PointNet. CVPR 2017. A cloud has no edges: models draw k-nearest-neighbour graphs.

ModelNet40 has no validation split. Here a tenth of the training shapes, stratified by class and drawn once, is kept
for validation, and selection is on it alone. Published numbers mostly took the best epoch on the test split or the
last one, and trained on all training shapes; keep that in mind beside them.
"""

import hashlib
import io
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from distillbench.plugin import (
    DataError,
    Dataset,
    Files,
    GraphData,
    Parameters,
    augmented,
    cloud_data,
    clouds,
    derive,
    downloaded,
    given,
    sha256,
    with_validation,
)

FOLDER = "data/modelnet40"
HDF5 = "https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip"
# SHA-256 and bytes of both archives as TensorFlow Graphics pins them (datasets/modelnet40/checksums)
ARCHIVES = {
    "hdf5": ("07670e237db72ece0f723b9abb571534c9ad655a6456b389646587dc72bb8bae", 435_212_151),
    "off": ("42dc3e656932e387f554e25a4eb2cc0e1a1bd3ab54606e2a9eae444c60e536ac", 2_039_180_837),
}
# MD5 of the unpacked files, as three public loaders of this archive check them
MD5 = {
    "ply_data_train0.h5": "3176385ffc31a7b6b5af22191fd920d1",
    "ply_data_train1.h5": "e3f613fb500559403b34925112754dc4",
    "ply_data_train2.h5": "0c56e233a090ff87c3049d4ce08e7d8b",
    "ply_data_train3.h5": "9d2af465adfa33a3285c369f3ca66c45",
    "ply_data_train4.h5": "dff38de489b2c41bfaeded86c2208984",
    "ply_data_test0.h5": "e9732e6d83b09e79e9a7617df058adee",
    "ply_data_test1.h5": "aba4b12a67c34391cc3c015a6f08ed4b",
}
COUNTS = {"hdf5": (9_840, 2_468, 40), "off": (9_843, 2_468, 40)}  # training shapes, test shapes, classes

POINTS = 1024  # of a cloud, in published results


class ModelNet40(Dataset):
    """Shapes are split as published, into training and test; validation is a part of training, the same for all seeds.

    hdf5: the clouds of 2,048 points that most papers use (modelnet40_ply_hdf5_2048, 9,840 + 2,468 shapes); the first
    ``points`` of each, as is usual. It counts as canonical by the digest of the archive or
    of all its .h5 files. off: the meshes (ModelNet40.zip, or the folder that PyG's ModelNet unpacks; 9,843 + 2,468
    shapes), canonical by the digest of the archive; points are drawn from the surface by area, with a seed for each
    file, so that everybody sees the same clouds. That takes tens of minutes, once.
    """

    task, setting, dynamic = "graph-multiclass", "inductive", True
    source = (
        "ModelNet40 (Wu et al. 2015), hdf5: https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip "
        "(Qi et al. 2017), off: http://modelnet.cs.princeton.edu/ModelNet40.zip"
    )
    licence = "models: copyright of their authors, collected from the Internet; for academic research only"

    class Params(Parameters):
        """path: archive or folder (default: downloaded). val: share or number of training shapes for validation.

        points: of a cloud. augment: scale, shift and jitter the clouds in training.
        """

        path: str | None = None
        points: int = Field(default=1024, ge=2)
        format: Literal["hdf5", "off"] = "hdf5"
        val: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1, strict=True)] = 0.1
        augment: bool = True

    def load(self) -> GraphData:
        """All shapes as clouds in the unit sphere, in the order of the files. Raises DataError naming the file."""
        p = self.params
        path = given(p.path) if p.path else _downloaded(p.format)
        self._digest = None if path.is_dir() else sha256(path)
        with Files(path, depth=4 if p.format == "off" else 2, limit=2**35) as files:
            points, labels, test, names = self._meshes(files) if p.format == "off" else self._hdf5(files)
        split = with_validation(labels, test, p.val)
        self._counts = len(test) - int(test.sum()), int(test.sum()), len(names)
        known = self._known and self._counts == COUNTS[p.format]
        self._whole = known or self._digest == ARCHIVES[p.format][0]
        return cloud_data(points, labels, split, names)

    def augment(self, x: Tensor, ptr: Tensor, random: torch.Generator) -> Tensor:
        """See clouds.augmented."""
        return augmented(x, ptr, random) if self.params.augment else x

    def provenance(self) -> dict[str, Any]:
        """Canonical by digest, and with as many points as published numbers are about."""
        found, expected = (
            f"{train:,} training and {test:,} test shapes of {classes} classes"
            for train, test, classes in (self._counts, COUNTS[self.params.format])
        )
        remark = f"not ModelNet40: {found}, instead of {expected}"
        if found == expected:
            remark = "as many shapes as ModelNet40, but other files: name the archive itself in params.path"
        if self._whole:
            points = self.params.points
            remark = "" if points == POINTS else f"reduced ModelNet40: {points:,} instead of {POINTS:,} points"
        about = {"canonical": not remark, "remark": remark}
        if remark and self._whole:
            about["name"] = "small-modelnet40"
        return about | ({"sha256": self._digest} if self._digest else {})

    def _hdf5(self, files: Files) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        names = _lines(files, "shape_names.txt")
        points, labels, test, digests = [], [], [], {}
        for part in ("train", "test"):
            for line in _lines(files, f"{part}_files.txt"):
                base = PurePosixPath(line).name  # the paths are those of the machine it was made on
                name = files.find(base)
                content = files.read(name)
                digests[base] = hashlib.md5(content, usedforsecurity=False).hexdigest()
                x, y = clouds(
                    *_arrays(files, name, content),
                    classes=len(names),
                    asked=self.params.points,
                    where=files.where(name),
                )
                points.append(x)
                labels.append(y)
                test.append(torch.full((len(y),), part == "test"))
        self._known = digests == MD5
        return torch.cat(points), torch.cat(labels), torch.cat(test), names

    def _meshes(self, files: Files) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Not by PyG's ModelNet itself: it holds all meshes in memory, and their order is the file system's."""
        shapes = [(name, *m.groups()) for name in files.names if (m := _MESH.search(name))]
        if not shapes:
            raise DataError(f"{files.path}: has no meshes of the form airplane/train/airplane_0001.off")
        names = sorted({of for _, of, _, _ in shapes})
        self._known = False  # only the digest of the archive vouches for meshes
        points = np.stack([self._sampled(files, name, shape) for name, _, _, shape in shapes])
        labels = np.array([names.index(of) for _, of, _, _ in shapes])
        x, y = clouds(points, labels, classes=len(names), asked=self.params.points, where=str(files.path))
        return x, y, torch.tensor([part == "test" for _, _, part, _ in shapes]), names

    def _sampled(self, files: Files, name: str, shape: str) -> np.ndarray:
        from torch_geometric.transforms import SamplePoints

        try:
            mesh = _mesh(files.read(name).decode())
            if int(mesh.face.min()) < 0:
                raise ValueError("a face names a vertex below 0")
            with torch.random.fork_rng(devices=[]):  # SamplePoints draws from the global generator
                torch.manual_seed(derive(0, "modelnet40", shape))
                return SamplePoints(self.params.points)(mesh).pos.numpy()
        except Exception as error:  # the parser names a damaged file in a dozen ways
            files.fail(name, f"not a mesh with a surface, in OFF format ({type(error).__name__}: {error})")


_MESH = re.compile(r"(?:^|/)([^/]+)/(train|test)/(\1_[^/]+)\.off$")


def _mesh(text: str) -> Any:
    """PyG's Data with ``pos`` and ``face`` of a file in OFF format."""
    from torch_geometric.data import Data
    from torch_geometric.io.off import parse_off

    numbers = np.array(text.removeprefix("OFF").split(), dtype=np.float64)
    vertices, faces = (int(number) for number in numbers[:2])
    corners = numbers[3 + 3 * vertices :]
    if len(corners) == 4 * faces and (corners[::4] == 3).all():  # triangles only: three times as fast as the parser
        positions = numbers[3 : 3 + 3 * vertices].reshape(-1, 3)
        return Data(
            pos=torch.from_numpy(positions).float(), face=torch.from_numpy(corners.reshape(-1, 4)[:, 1:].T).long()
        )
    return parse_off([line for line in text.splitlines() if line.strip()])


def _address() -> str:
    from torch_geometric.datasets import ModelNet  # seconds to import

    return ModelNet.urls["40"]


def _downloaded(form: str) -> Path:
    if form == "off":
        return downloaded(Path(FOLDER, "ModelNet40.zip"), _address, *ARCHIVES["off"])
    return downloaded(Path(FOLDER, PurePosixPath(HDF5).name), lambda: HDF5, *ARCHIVES["hdf5"])


def _lines(files: Files, base: str) -> list[str]:
    name = files.find(base)
    lines = [line.strip() for line in files.read(name).decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        files.fail(name, "is empty")
    return lines


def _arrays(files: Files, name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """``data`` and ``label`` of one .h5 file."""
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            for key in ("data", "label"):
                inside = isinstance(file.get(key, getlink=True), h5py.HardLink) and isinstance(file[key], h5py.Dataset)
                if not inside or file[key].external or file[key].is_virtual:
                    raise ValueError(f"no array {key!r} in the file itself")
            return file["data"][()], file["label"][()]
    except Exception as error:  # h5py names a damaged file in a dozen ways
        files.fail(name, f"not an HDF5 file with data and label ({type(error).__name__}: {error})")
