"""Made-up cubes: layout, determinism for any box, skeletons, gaps and defects."""

import dataclasses
import json
import pickle
import shutil

import networkx
import numpy as np
import pytest
from small_neurites import SIZE_NM, THIN

from nisbjax import skeletons
from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid
from nisbjax.store import volume
from nisbjax.synth import rendering, tissue
from nisbjax.synth import stage as synthetic
from nisbjax.typing import Section

SHAPE = (72, 70, 66)  # one chunk of 64 and a rest along every axis
VOLUMES = ("train/seed0", "test/seed6")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    return synthetic.write_dataset(root, SHAPE, VOLUMES, THIN, 42, SIZE_NM)


@pytest.fixture(scope="module")
def cube(folders):
    data = folders[1] / "data.zarr"
    image = volume.open_image(data / "img").read()[..., 0]
    return image, volume.open_labels(data / "seg").read()


@pytest.fixture(scope="module")
def neurites():
    return tissue.grow_neurites(SHAPE, SIZE_NM, THIN, rendering.cube_seed(42, 6))


def test_layout_is_that_of_nisb(folders):
    assert [f"{f.parent.name}/{f.name}" for f in folders] == list(VOLUMES)
    data = folders[0] / "data.zarr"
    image, labels = (json.loads((data / n / ".zarray").read_text()) for n in IMG_SEG)
    assert json.loads((data / ".zgroup").read_text()) == {"zarr_format": 2}
    assert image["zarr_format"] == labels["zarr_format"] == 2
    assert image["shape"] == [*SHAPE, 1]
    assert labels["shape"] == list(SHAPE)
    assert (image["dtype"], labels["dtype"]) == ("|u1", "<u2")
    assert volume.open_labels(data / "seg").attributes["voxel_size_nm"] == [9, 9, 12]


IMG_SEG = ("img", "seg")


def test_skeletons_lie_in_their_labels(folders, cube):
    with open(folders[1] / "skeleton.pkl", "rb") as file:
        graph = pickle.load(file)
    assert type(graph) is networkx.Graph
    for _, node in graph.nodes(data=True):
        assert set(node) == {"id", "index_position", "nm_position"}
        x, y, z = node["index_position"]
        assert node["nm_position"] == (9.0 * x, 9.0 * y, 12.0 * z)
        assert cube[1][x, y, z] == node["id"] > 0
    for a, b, attributes in graph.edges(data=True):
        assert attributes == {}
        assert graph.nodes[a]["id"] == graph.nodes[b]["id"]
    loaded = skeletons.load(folders[1] / "skeleton.pkl")
    assert len(loaded.node_id) == len(graph) > 50
    # Samples are 36 nm apart before packing and snapping.
    assert np.median(loaded.edge_lengths_nm) == pytest.approx(36, rel=0.25)


def test_no_two_neurites_share_a_face_and_most_is_filled(cube):
    labels = cube[1].astype(int)
    for axis in range(3):
        a, b = (np.moveaxis(labels, axis, 0)[s] for s in (slice(1, None), slice(-1)))
        assert not np.any((a != b) & (a > 0) & (b > 0))
    inside = labels[THIN.labelled(SHAPE).slices]
    assert (inside > 0).mean() > 0.4
    assert len(np.unique(inside)) > 10


def test_the_ring_and_the_defective_planes(cube):
    image, labels = cube
    middle = image[20:-20, 20:-20]
    for planes in (slice(3), slice(-2, None)):
        # 0.42 * 150 = 63 grey values, and 15 % of the tissue's difference from 150.
        assert middle[..., planes].mean() == pytest.approx(60, abs=8)
        assert middle[..., planes].std() < 0.4 * middle[..., 10:-10].std()
        assert not labels[..., planes].any()
    # The ring is 3 to 6 voxels wide.
    for face in (image[:3], image[-3:], image[:, :3], image[:, -3:]):
        assert face.max() <= THIN.background
    dark = image <= THIN.background
    assert not dark[6:-6, 6:-6].any()
    assert not labels[dark].any()


def test_membranes_are_darker_than_their_neurites(cube):
    image, labels = cube
    whole = THIN.labelled(SHAPE).slices
    inside, between = image[whole][labels[whole] > 0], image[whole][labels[whole] == 0]
    assert between.mean() < 0.8 * inside.mean()


@pytest.mark.parametrize("box_shape", [(20, 33, 66), (72, 70, 17)])
def test_a_box_alone_has_the_bytes_of_the_whole(neurites, cube, box_shape):
    seed = rendering.cube_seed(42, 6)
    for box in box_grid(SHAPE, box_shape)[::3]:
        made = rendering.render_box(neurites, THIN, box, SHAPE, SIZE_NM, seed)
        for alone, whole in zip(made, cube, strict=True):
            np.testing.assert_array_equal(alone, whole[box.slices])


def test_files_are_equal_for_any_box_and_after_an_interruption(folders, tmp_path):
    cubes = tmp_path / "again"
    arguments = (cubes, SHAPE, VOLUMES[1:], THIN, 42, SIZE_NM)
    (folder,) = synthetic.write_dataset(*arguments, box_shape=(64, 128, 64), workers=1)
    _assert_equal_trees(folder, folders[1])
    # Interrupted: the skeletons and one box were not recorded, its chunk is lost.
    manifest = folder / "data.zarr" / ".manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    # The last lines: two boxes, a note and a line on the skeletons, the finish.
    box = Box.parse(json.loads(lines[-4])["key"])
    name = ".".join(str(s // 64) for s in (*box.start, 0))
    (folder / "data.zarr" / "img" / name).unlink()
    (folder / "skeleton.pkl").unlink()
    manifest.write_text("".join(lines[:-4]))
    synthetic.write_dataset(*arguments, box_shape=(64, 128, 64))
    _assert_equal_trees(folder, folders[1])
    # Finished, and then damaged or removed in part or as a whole.
    for lost in ("data.zarr/seg/1.0.0", "data.zarr/img/0.0.1.0", "skeleton.pkl"):
        (folder / lost).write_bytes(b"x")
        synthetic.write_dataset(*arguments)
        _assert_equal_trees(folder, folders[1])
    shutil.rmtree(folder / "data.zarr")
    synthetic.write_dataset(*arguments)
    _assert_equal_trees(folder, folders[1])
    # Another program's cube is left alone.
    manifest.unlink()
    with pytest.raises(InputError, match="data.zarr was not written by this stage"):
        synthetic.write_dataset(*arguments)
    assert not manifest.exists()


def _assert_equal_trees(made, wanted):
    names = {p.relative_to(wanted) for p in wanted.rglob("*") if p.is_file()}
    assert names == {p.relative_to(made) for p in made.rglob("*") if p.is_file()}
    for name in names:
        if "manifest" not in name.name:  # whose boxes differ
            assert (made / name).read_bytes() == (wanted / name).read_bytes(), name


def test_seeds_differ(neurites):
    other = tissue.grow_neurites(SHAPE, SIZE_NM, THIN, rendering.cube_seed(43, 6))
    assert not np.array_equal(neurites.position, other.position)


def test_every_sample_follows_its_parent_on_a_neurite(neurites):
    has_parent = neurites.parent >= 0
    rows = np.flatnonzero(has_parent)
    parents = neurites.parent[rows]
    assert np.all(parents < rows)
    np.testing.assert_array_equal(neurites.neurite[rows], neurites.neurite[parents])
    # One root for each neurite, and numbers without gaps.
    roots = neurites.neurite[~has_parent]
    np.testing.assert_array_equal(np.sort(roots), np.arange(1, neurites.count + 1))


def test_many_neurites_need_wider_labels(tmp_path, monkeypatch, neurites):
    many = dataclasses.replace(neurites, neurite=neurites.neurite + 70_000)
    monkeypatch.setattr(tissue, "grow_neurites", lambda *_: many)
    (folder,) = synthetic.write_dataset(
        tmp_path, SHAPE, ("val/seed1",), THIN, 0, SIZE_NM
    )
    labels = volume.open_labels(folder / "data.zarr" / "seg").read()
    assert labels.dtype == np.uint32
    assert labels.max() > 70_000


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shape": (64, 64)}, r"synth.shape is \(64, 64\); wanted three sizes of at"),
        ({"shape": (64, 64, 8)}, r"wanted three sizes of at least 24"),
        ({"volumes": ()}, "synth.volumes is empty; wanted train/seed0"),
        (
            {"volumes": ("train/3",)},
            "synth.volumes holds 'train/3'; wanted train/seed0",
        ),
        ({"volumes": ("train/seed1", "val/seed1")}, "a number of its own for each"),
        ({"box_shape": (32, 64, 64)}, r"box_shape is .*; wanted multiples of \(64"),
    ],
)
def test_wrong_requests_are_refused(tmp_path, changed, message):
    request = {"shape": SHAPE, "volumes": VOLUMES, "box_shape": None} | changed
    with pytest.raises(InputError, match=message):
        synthetic.write_dataset(
            tmp_path,
            request["shape"],
            request["volumes"],
            THIN,
            0,
            SIZE_NM,
            box_shape=request["box_shape"],
        )
    assert not list(tmp_path.iterdir())


def test_other_parameters_in_the_same_place_are_refused(folders):
    root = folders[0].parents[1]
    with pytest.raises(InputError, match=r"other seed \(seed: 42, now 1\)"):
        synthetic.write_dataset(root, SHAPE, VOLUMES[:1], THIN, 1, SIZE_NM)


def test_the_stage_reads_its_section(tmp_path):
    section = Section({"kind": "liconn", "shape": (24, 24, 24), "halo_voxels": 2})
    section.volumes, section.defects = ("val/seed3",), (1, 1)
    values = {"seed": 7, "voxel_size_nm": SIZE_NM, "workers": 1}
    synthetic.run(section, tmp_path, **values)
    image = volume.open_image(tmp_path / "val" / "seed3" / "data.zarr" / "img")
    assert image.shape == (24, 24, 24, 1)
    assert image.attributes["made_of"]["tissue"]["halo_voxels"] == 2
    section.kind = "mouse"
    with pytest.raises(InputError, match="synth.kind is 'mouse'; wanted liconn"):
        synthetic.run(section, tmp_path, **values)
