"""ModelNet40 and KiCad-3D: files read as they are, every damaged one named, clouds augmented as stated."""

import hashlib
import sys
import urllib.error
import zipfile
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch_geometric.data
from pydantic import ValidationError
from torch_geometric.datasets import ModelNet
from torch_geometric.io import read_off

from distillbench.data.clouds import augmented, clouds, stratified, unit_sphere, with_validation
from distillbench.data.graph_data import DataError
from distillbench.plugins import declaration, load
from tests.needs import SHARED, needs_file

NAMES = (
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser flower_pot "
    "glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano plant radio range_hood sink sofa "
    "stairs stool table tent toilet tv_stand vase wardrobe xbox"
)
ROOT = Path(__file__).parents[2]
DATASETS = ROOT / "datasets"
KICAD = SHARED / "kicad3d" / "kicad_cls_f16_1024.npz"
needs_kicad = needs_file(KICAD)


def make(name, **params):
    plugin = load("dataset", DATASETS / f"{name}.py")
    return plugin(plugin.Params(**params))


def random_clouds(number=40, points=24, classes=4):
    random = np.random.default_rng(0)
    return random.normal(size=(number, points, 3)).astype(np.float32), np.arange(number) % classes


# ModelNet40, hdf5


def write_hdf5(folder, parts, names):
    """ModelNet40's layout. parts: {"train": [(points, labels), ...], "test": [...]}, one pair a file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shape_names.txt").write_text("".join(f"{name}\n" for name in names))
    for part, pairs in parts.items():
        listed = []
        for index, (points, labels) in enumerate(pairs):
            listed.append(f"data/modelnet40_ply_hdf5_2048/ply_data_{part}{index}.h5\n")
            with h5py.File(folder / f"ply_data_{part}{index}.h5", "w") as file:
                file.create_dataset("data", data=points, compression="gzip")
                file.create_dataset("label", data=labels.astype(np.uint8)[:, None])
        (folder / f"{part}_files.txt").write_text("".join(listed))
    return folder


@pytest.fixture
def hdf5(tmp_path):
    """30 training clouds in two files and 10 test clouds, 24 points, 4 classes."""
    x, y = random_clouds()
    parts = {"train": [(x[:20], y[:20]), (x[20:30], y[20:30])], "test": [(x[30:], y[30:])]}
    return write_hdf5(tmp_path / "modelnet40_ply_hdf5_2048", parts, "abcd")


def archive_of(folder, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


@needs_kicad
def test_real_clouds_in_modelnets_layout_are_read_as_they_are(tmp_path):
    kicad = np.load(KICAD)
    rows = np.random.default_rng(0).permutation(3128)[:400]
    x, y = kicad["points"][rows, :64].astype(np.float32), kicad["label"][rows].astype(np.int64)
    parts = {"train": [(x[:200], y[:200]), (x[200:320], y[200:320])], "test": [(x[320:], y[320:])]}
    dataset = make("modelnet40", path=str(write_hdf5(tmp_path, parts, kicad["classes"])), points=48, val=30)
    data = dataset.load()
    assert torch.equal(data.y, torch.from_numpy(y))
    assert torch.allclose(data.x.view(400, 48, 3), unit_sphere(torch.from_numpy(x[:, :48])), atol=1e-6)
    assert data.num_classes == 35
    split = dataset.split(data, 3)
    assert split.sizes() == {"train": 290, "val": 30, "test": 80}
    assert split.test.tolist() == list(range(320, 400))
    about = dataset.provenance()
    assert not about["canonical"]
    assert about["remark"] == (
        "not ModelNet40: 320 training and 80 test shapes of 35 classes, "
        "instead of 9,840 training and 2,468 test shapes of 40 classes"
    )
    with pytest.raises(DataError, match=r"must not be shown as 'modelnet40'.*my-modelnet40"):
        dataset.check_name("modelnet40")


def test_folder_parent_folder_and_archive_are_one(hdf5, tmp_path):
    archive = archive_of(hdf5, tmp_path / "any.zip")
    paths = (hdf5, hdf5.parent, archive)
    assert len({make("modelnet40", path=str(path), points=24).load().digest for path in paths}) == 1


def test_the_published_digests_make_it_canonical(hdf5, tmp_path, monkeypatch):
    dataset, archive = make("modelnet40", path=str(hdf5), points=24), archive_of(hdf5, tmp_path / "any.zip")
    module = sys.modules[type(dataset).__module__]
    dataset.load()
    assert not dataset.provenance()["canonical"]
    monkeypatch.setitem(module.COUNTS, "hdf5", (30, 10, 4))
    assert "as many shapes as ModelNet40, but other files" in dataset.provenance()["remark"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "MD5", {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in hdf5.glob("*.h5")})
        dataset.load()
        reduced = {"canonical": False, "remark": "reduced ModelNet40: 24 instead of 1,024 points"}
        assert dataset.provenance() == {**reduced, "name": "small-modelnet40"}
        patch.setattr(module, "POINTS", 24)
        assert dataset.provenance() == {"canonical": True, "remark": ""}
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(module.ARCHIVES, "hdf5", (digest, 1))
    dataset = type(dataset)(dataset.Params(path=str(archive), points=24))
    dataset.load()
    monkeypatch.setattr(module, "POINTS", 24)
    assert dataset.provenance() == {"canonical": True, "remark": "", "sha256": digest}
    dataset.check_name("modelnet40")


def rewritten(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value


X, Y = random_clouds(6)
FLAT, HOLE = X.copy(), X.copy()
FLAT[2], HOLE[3, 1, 0] = FLAT[2, 0], np.nan


@pytest.mark.parametrize(
    "arrays, problem",
    [
        ({"data": X, "label": Y + 1}, "the label of cloud 3 is 4, must be 0 to 3"),
        ({"data": X, "label": Y - 1}, "the label of cloud 0 is -1, must be 0 to 3"),
        ({"data": X, "label": Y[:5]}, r"one for each of 6 clouds, not int64 \[5\]"),
        ({"data": X, "label": np.stack([Y, Y], 1)}, r"one for each of 6 clouds, not int64 \[6, 2\]"),
        ({"data": X, "label": Y / 2}, r"labels must be integers.*not float64 \[6\]"),
        ({"data": X[..., :2], "label": Y}, r"points must be \[clouds, points, 3\] floats, not float32 \[6, 24, 2\]"),
        ({"data": X[0], "label": Y}, r"points must be .*not float32 \[24, 3\]"),
        ({"data": X.astype(int), "label": Y}, r"points must be .*not int64"),
        ({"data": X[:, :20], "label": Y}, r"params\.points is 24, but its clouds have 20 points"),
        ({"data": HOLE, "label": Y}, "cloud 3 has coordinates that are not finite"),
        ({"data": FLAT, "label": Y}, "all 24 points of cloud 2 are the same"),
        ({"data": X}, "no array 'label'"),
        ({"data": X, "label": h5py.ExternalLink("/etc/passwd", "/")}, "no array 'label' in the file itself"),
    ],
)
def test_what_is_wrong_with_an_h5_file_is_named(hdf5, arrays, problem):
    rewritten(hdf5 / "ply_data_train1.h5", **arrays)
    with pytest.raises(DataError, match=rf"{hdf5}: ply_data_train1\.h5: .*{problem}"):
        make("modelnet40", path=str(hdf5), points=24).load()


def test_a_file_cut_short_or_missing_is_named(hdf5):
    path = hdf5 / "ply_data_train1.h5"
    whole = path.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"ply_data_train1\.h5: not an HDF5 file"):
            make("modelnet40", path=str(hdf5), points=24).load()
    path.write_bytes(whole)
    for name in ("ply_data_train1.h5", "test_files.txt", "shape_names.txt"):
        kept = (hdf5 / name).read_bytes()
        (hdf5 / name).unlink()
        with pytest.raises(DataError, match=f"{hdf5}: has no {name}"):
            make("modelnet40", path=str(hdf5), points=24).load()
        (hdf5 / name).write_bytes(kept)


@pytest.mark.parametrize(
    "form, url, file",
    [
        ("hdf5", "https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip", "modelnet40_ply_hdf5_2048.zip"),
        ("off", "http://modelnet.cs.princeton.edu/ModelNet40.zip", "ModelNet40.zip"),
    ],
)
def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch, form, url, file):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch_geometric.data, "download_url", offline)
    with pytest.raises(DataError) as error:
        make("modelnet40", format=form).load()
    for told in (url, f"{tmp_path}/data/modelnet40/{file}", "datasets.<name>.params.path"):
        assert told in str(error.value)


# ModelNet40, off


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """Folders as PyG's ModelNet unpacks them: 40 classes of two training and one test mesh, all in the plane z = 0."""
    root, random = tmp_path_factory.mktemp("modelnet"), np.random.default_rng(0)
    for name in NAMES.split():
        for part, number in (("train", 1), ("train", 2), ("test", 3)):
            path = root / "raw" / name / part / f"{name}_{number:04}.off"
            path.parent.mkdir(parents=True, exist_ok=True)
            corners = "".join(f"{x:.5f} {y:.5f} 0\n" for x, y in random.normal(size=(4, 2)))
            first = "OFF4 2 0\n" if number == 1 else "OFF\n4 2 0\n"  # some of the published files lack the line break
            path.write_text(f"{first}{corners}3 0 1 2\n4 0 1 2 3\n")
    return root


def test_meshes_are_sampled_alike_whatever_was_drawn_before(meshes, tmp_path):
    datasets = [make("modelnet40", path=str(path), format="off", points=16) for path in (meshes, meshes / "raw")]
    first = datasets[0].load()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    archive = archive_of(meshes / "raw", tmp_path / "ModelNet40.zip")
    datasets.append(make("modelnet40", path=str(archive), format="off", points=16))
    assert {dataset.load().digest for dataset in datasets[1:]} == {first.digest}
    assert torch.equal(torch.get_rng_state(), state)
    assert first.x.view(120, 16, 3)[..., 2].abs().max() < 1e-6  # on the surface
    assert datasets[0].split(first, 0).sizes() == {"train": 72, "val": 8, "test": 40}
    about = datasets[0].provenance()
    assert not about["canonical"]
    assert "80 training and 40 test shapes of 40 classes, instead of 9,843" in about["remark"]


@pytest.mark.parametrize("faces", ["3 0 1 2\n3 1 2 3\n", "3 0 1 2\n4 0 1 2 3\n"])
@pytest.mark.parametrize("first", ["OFF\n4 2 0\n", "OFF4 2 0\n"])
def test_meshes_are_those_that_pyg_reads(tmp_path, faces, first):
    text = f"{first}0 0 0\n1.5 0 0\n0 1e-1 0\n1 1 -1\n{faces}"
    (tmp_path / "a.off").write_text(text)
    ours, theirs = sys.modules[type(make("modelnet40")).__module__]._mesh(text), read_off(str(tmp_path / "a.off"))
    assert torch.equal(ours.pos, theirs.pos)
    assert torch.equal(ours.face, theirs.face)


def test_the_folder_is_the_one_that_pygs_class_reads(meshes):
    data = make("modelnet40", path=str(meshes), format="off", points=16).load()
    for part, train in (("train", True), ("test", False)):
        theirs = ModelNet(str(meshes), name="40", train=train)
        ours = data.y[torch.cat([data.split.train, data.split.val]) if train else data.split.test]
        assert ours.bincount().tolist() == theirs.y.bincount().tolist(), part


def test_meshes_are_canonical_by_digest_not_by_counts(meshes, monkeypatch):
    dataset = make("modelnet40", path=str(meshes), format="off", points=8)
    monkeypatch.setitem(sys.modules[type(dataset).__module__].COUNTS, "off", (80, 40, 40))
    dataset.load()
    about = dataset.provenance()
    assert not about["canonical"]
    assert about["remark"].startswith("as many shapes as ModelNet40, but other files")


@pytest.mark.parametrize(
    "text",
    ["", "OFF\n", "solid x", "OFF\n3 1 0\n0 0 0\n1 0 0\n", "OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n"]
    + [f"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 {bad}\n" for bad in ("3", "-1", "x")],
)
def test_a_file_that_is_no_mesh_is_named(tmp_path, text):
    path = tmp_path / "sofa" / "train" / "sofa_0001.off"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(DataError, match=r"sofa/train/sofa_0001\.off: not a mesh"):
        make("modelnet40", path=str(tmp_path), format="off", points=8).load()


def test_a_folder_without_meshes_is_named(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}: has no meshes"):
        make("modelnet40", path=str(tmp_path), format="off").load()


# KiCad-3D


@pytest.fixture
def npz(tmp_path):
    """``npz(label=...)``: a file of 40 clouds, 24 points, 4 classes, 10 for the test, with this instead."""

    def write(**changes):
        x, y = random_clouds()
        arrays = {"points": x.astype(np.float16), "label": y.astype(np.int8), "test": np.arange(40) >= 30}
        path = tmp_path / "some.npz"
        np.savez_compressed(path, **(arrays | {"classes": np.array(list("abcd"))} | changes))
        return path

    return write


@needs_kicad
def test_kicad_counts():
    dataset = make("kicad3d", path=str(KICAD), points=32)
    data = dataset.load()
    file = np.load(KICAD)
    assert (data.num_graphs, data.num_classes, data.num_nodes) == (3128, 35, 3128 * 32)
    split = dataset.split(data, 1)
    assert split.sizes() == {"train": 2262, "val": 251, "test": 615}
    assert split.test.tolist() == np.flatnonzero(file["test"]).tolist()
    share = data.y[split.val].bincount(minlength=35) / data.y[~torch.from_numpy(file["test"])].bincount()
    assert share.min() > 0.06 and share.max() < 0.14
    points = data.x.view(3128, 32, 3)
    assert points.norm(dim=2).amax(dim=1).sub(1).abs().max() < 1e-6
    assert points.mean(dim=1).abs().max() < 1e-6
    assert dataset.provenance()["canonical"]
    dataset.check_name("kicad3d")


@needs_kicad
def test_a_reduced_kicad_keeps_the_validation_clouds_and_says_so():
    whole = make("kicad3d", path=str(KICAD), points=16).load()
    dataset = make("kicad3d", path=str(KICAD), points=16, train=100, test=50)
    data = dataset.load()
    assert dataset.split(data, 0).sizes() == {"train": 100, "val": 251, "test": 50}
    assert torch.equal(data.x.view(-1, 16, 3)[data.split.val], whole.x.view(-1, 16, 3)[whole.split.val])
    assert torch.equal(data.y[data.split.val], whole.y[whole.split.val])
    assert len(data.y[data.split.train].unique()) == 35
    about = dataset.provenance()
    assert not about["canonical"]
    assert about["remark"] == "reduced KiCad-3D: 100 of 2262 training clouds, 50 of 615 test clouds"
    with pytest.raises(DataError, match="small-kicad3d"):
        dataset.check_name("kicad3d")


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"label": np.arange(40) - 1}, "the label of cloud 0 is -1, must be 0 to 3"),
        ({"label": np.zeros(39, int)}, "labels must be integers, one for each of 40 clouds"),
        ({"points": np.zeros((40, 24, 3), np.float16)}, "all 24 points of cloud 0 are the same"),
        ({"points": np.full((40, 24, 3), np.inf, np.float16)}, "cloud 0 has coordinates that are not finite"),
        ({"points": np.zeros((40, 24, 4), np.float16)}, r"points must be \[clouds, points, 3\]"),
        ({"points": np.zeros((40, 8, 3), np.float16)}, r"params\.points is 24, but its clouds have 8 points"),
        ({"test": np.arange(40)}, r"test must be \[40\] bool, not int64 \[40\]"),
        ({"test": np.ones(40, bool)}, "0 of 0 training clouds leave none"),
        ({"classes": np.arange(4)}, "classes must be names, not int64"),
        ({"classes": np.array(["a", {}], dtype=object)}, r"classes\.npy: not an array"),
    ],
)
def test_what_is_wrong_with_an_npz_file_is_named(npz, changes, problem):
    path = npz(**changes)
    with pytest.raises(DataError, match=problem) as error:
        make("kicad3d", path=str(path), points=24).load()
    # by the file, but where a parameter asks for more than there is
    assert str(error.value).startswith("params.val 0.1: " if problem.startswith("0 of 0") else f"{path}: ")


def test_an_npz_file_cut_short_or_missing_is_named(npz, tmp_path):
    path = npz()
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=f"{path}: cannot be read as a zip archive"):
        make("kicad3d", path=str(path), points=24).load()
    with pytest.raises(DataError, match=rf"{tmp_path}/none\.npz: no such file.*datasets\.<name>\.params\.path"):
        make("kicad3d", path=f"{tmp_path}/none.npz").load()


def test_more_clouds_than_there_are_cannot_be_asked_for(npz):
    for params, problem in (
        ({"train": 28}, r"params\.train is 28, but there are 27 clouds"),
        ({"test": 11}, r"params\.test is 11, but there are 10 clouds"),
        ({"val": 30}, r"params\.val 30: 30 of 30 training clouds"),
        ({"val": 0.01}, r"params\.val 0\.01: 0 of 30 training clouds"),
    ):
        with pytest.raises(DataError, match=problem):
            make("kicad3d", path=str(npz()), points=24, **params).load()


def test_another_file_is_not_kicad(npz):
    dataset = make("kicad3d", path=str(npz()), points=24)
    dataset.load()
    with pytest.raises(DataError, match=r"other SHA-256.*my-kicad3d"):
        dataset.check_name("kicad3d")


# Declarations


@pytest.mark.parametrize("name", ["modelnet40", "kicad3d"])
def test_declared_without_torch_and_parameters_that_make_no_sense_refused(name):
    declared = declaration("dataset", DATASETS / f"{name}.py")
    assert (declared.task, declared.setting, declared.dynamic) == ("graph-multiclass", "inductive", True)
    assert declared.params(val=50).val == 50
    assert declared.params(val=0.2).val == 0.2
    for params in ({"val": 0}, {"val": 1.5}, {"val": -3}, {"val": True}, {"points": 1}, {"path": 1}, {"format": "ply"}):
        with pytest.raises(ValidationError):
            declared.params(**params)


# Splits


def test_a_stratified_draw_gives_every_class_its_share():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 15 + [3] * 5)
    drawn = stratified(labels, 20, torch.Generator().manual_seed(0))
    assert labels[drawn].bincount().tolist() == [10, 6, 3, 1]
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    for number in range(101):
        assert len(stratified(labels, number, torch.Generator().manual_seed(number)).unique()) == number
    assert torch.equal(drawn, stratified(labels, 20, torch.Generator().manual_seed(0)))
    assert not torch.equal(drawn, stratified(labels, 20, torch.Generator().manual_seed(1)))


def test_validation_is_drawn_from_training_once():
    labels, test = torch.arange(200) % 5, torch.arange(200) % 4 == 0
    split = with_validation(labels, test, 0.1)
    assert split.sizes() == {"train": 135, "val": 15, "test": 50}
    assert torch.cat(split).sort().values.tolist() == list(range(200))
    torch.manual_seed(5)
    assert torch.equal(with_validation(labels, test, 15).val, split.val)


# Augmentation


PTR = torch.tensor([0, 500, 800, 2000])


def test_clouds_are_put_into_the_unit_sphere_whatever_their_scale():
    x = np.array([[[0, 0, 0], [2, 0, 0], [1, 1, 0], [1, -1, 0]]])
    for scale in (1e-30, 1.0, 1e30):
        points, _ = clouds((scale * x + scale).astype(np.float64), np.zeros(1, int), classes=1, asked=4, where="f")
        assert torch.allclose(points, torch.tensor([[[-1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0]]]), atol=1e-6)


def test_augmentation_scales_and_shifts_clouds_and_jitters_points_within_bounds():
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    scales, shifts = [], []
    for seed in range(40):
        out = augmented(x, PTR, torch.Generator().manual_seed(seed))
        assert out.shape == x.shape and out.dtype == x.dtype
        for start, stop in pairwise(PTR.tolist()):
            for axis in range(3):  # points keep their order, so each axis is a line but for the jitter
                before = torch.stack([x[start:stop, axis], torch.ones(stop - start)], dim=1)
                after = out[start:stop, axis]
                line = torch.linalg.lstsq(before, after).solution
                assert (after - before @ line).abs().max() < 0.025
                assert (after - before @ line).std().item() == pytest.approx(0.01, rel=0.2)
                scales.append(line[0].item())
                shifts.append(line[1].item())
    assert len({round(scale, 4) for scale in scales}) > 300  # another for every cloud, axis and draw
    assert min(scales) == pytest.approx(2 / 3, abs=0.03) and max(scales) == pytest.approx(3 / 2, abs=0.03)
    assert min(shifts) == pytest.approx(-0.2, abs=0.02) and max(shifts) == pytest.approx(0.2, abs=0.02)


def test_augmentation_is_of_its_generator_alone_and_can_be_turned_off():
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    torch.manual_seed(1)
    first = augmented(x, PTR, torch.Generator().manual_seed(7))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, augmented(x, PTR, torch.Generator().manual_seed(7)))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, augmented(x, PTR, torch.Generator().manual_seed(8)))
    assert torch.equal(x, before)
    for name in ("modelnet40", "kicad3d"):
        assert torch.equal(make(name).augment(x, PTR, torch.Generator().manual_seed(7)), first)
        assert make(name, augment=False).augment(x, PTR, torch.Generator()) is x


def test_no_jitter_is_above_its_limit():
    moved = augmented(torch.zeros(2000, 3), PTR, torch.Generator().manual_seed(0))
    for start, stop in pairwise(PTR.tolist()):
        cloud = moved[start:stop]
        assert (cloud.amax(dim=0) - cloud.amin(dim=0)).max() <= 0.04 + 1e-6
    assert moved.abs().max() <= 0.22 + 1e-6
