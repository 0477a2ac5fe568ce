"""A mask that is named is looked at before anything is predicted."""

import pathlib
import pickle

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from nisbjax import launch
from nisbjax.artifacts import VolumeDir
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.modes import quality
from nisbjax.store.volume import create_zarr

IMAGE = (6, 5, 4)
PLACE = VolumeDir(pathlib.Path("seed6"))


def write(path, values, axes):
    create_zarr(
        path, shape=values.shape, dtype=values.dtype, chunks=values.shape, axes=axes
    ).write(..., values)
    return str(path)


@pytest.fixture
def config(tmp_path):
    """A volume of 6 x 5 x 4 voxels with one neurite of two nodes, for val and test."""
    image = np.arange(120, dtype=np.uint8).reshape(*IMAGE, 1)
    write(tmp_path / "val/img", image, "xyzc")
    graph = nx.Graph()
    for x in range(2):
        graph.add_node(x, id=1, index_position=(x, 2, 2), nm_position=(9.0 * x, 18, 24))
    graph.add_edge(0, 1)
    for volume in ("val", "test"):
        folder = tmp_path / volume
        folder.mkdir(exist_ok=True)
        graph.nodes[0]["id"] = graph.nodes[1]["id"] = 1 + (volume == "test")
        (folder / "skeleton.pkl").write_bytes(pickle.dumps(graph))
    write(tmp_path / "test/img", image, "xyzc")
    config = base_config()
    config.data.root = str(tmp_path)
    for volume in ("val", "test"):
        config.data[volume].image = f"{volume}/img"
        config.data[volume].skeleton = f"{volume}/skeleton.pkl"
    return config


def mask_of(tmp_path, shape):
    path = tmp_path / f"mask{shape[1]}{shape[2]}.zarr"
    return str(path) if path.exists() else write(path, np.ones(shape, np.uint8), "xyz")


def test_a_mask_has_the_shape_of_what_is_predicted(config, tmp_path):
    image = config.data.root + "/test/img"
    config.decode.affinity_mask = mask_of(tmp_path, (6, 5, 3))
    with pytest.raises(InputError, match=r"mask \(6, 5, 3\) does not match .*6, 5, 4"):
        quality.check_mask(config, PLACE, image)
    config.predict.roi = "0:6,0:5,1:4"  # of three planes
    quality.check_mask(config, PLACE, image)
    config.decode.affinity_mask = mask_of(tmp_path, IMAGE)  # whose part is taken
    quality.check_mask(config, PLACE, image)
    config.decode.affinity_mask = mask_of(tmp_path, (6, 5, 3))
    config.predict.roi = "0:6,0:5,0:4"
    with pytest.raises(InputError, match=r"mask \(6, 5, 3\) does not match .*6, 5, 4"):
        quality.check_mask(config, PLACE, image)
    config.decode.affinity_mask = ""
    quality.check_mask(config, PLACE, image)


def test_a_mask_is_of_the_region_that_is_predicted(config, tmp_path):
    """Of planes 0 to 2, as a mask of another prediction says; 1 to 3 have its shape."""
    image, path = config.data.root + "/test/img", tmp_path / "part.zarr"
    create_zarr(
        path,
        shape=(6, 5, 3),
        dtype="uint8",
        chunks=(6, 5, 3),
        axes="xyz",
        attributes={"box": "0:6,0:5,0:3", "volume_shape": list(IMAGE)},
    ).write(..., np.ones((6, 5, 3), np.uint8))
    config.decode.affinity_mask = str(path)
    config.predict.roi = "0:6,0:5,0:3"
    quality.check_mask(config, PLACE, image)
    config.predict.roi = "0:6,0:5,1:4"
    with pytest.raises(
        InputError,
        match=r"part.zarr is of 0:6,0:5,0:3 of its volume, and 0:6,0:5,1:4 of .*/test/img "
        "is going to be predicted; name a mask of that part",
    ):
        quality.check_mask(config, PLACE, image)


def test_the_image_of_a_mask_is_whole_or_of_the_part(config, tmp_path):
    image = config.data.root + "/test/img"
    config.decode.affinity_mask = "auto"
    config.predict.roi = "0:6,0:5,1:4"
    quality.check_mask(config, PLACE, image)
    for planes in (3, 4):
        part = np.zeros((6, 5, planes, 1), np.uint8)
        config.qc.image = write(tmp_path / f"{planes}.zarr", part, "xyzc")
        quality.check_mask(config, PLACE, image)
    config.qc.image = write(tmp_path / "5.zarr", np.zeros((6, 5, 5, 1), "u1"), "xyzc")
    with pytest.raises(
        InputError,
        match=r"5.zarr \(6, 5, 5\); wanted the shape \(6, 5, 4\) .*, or \(6, 5, 3",
    ):
        quality.check_mask(config, PLACE, image)
    config.predict.roi = ""
    with pytest.raises(
        InputError, match=r"wanted the shape \(6, 5, 4\) of .*/test/img$"
    ):
        quality.check_mask(config, PLACE, image)


@pytest.mark.parametrize("mode", ["test", "tune", "tune-test"])
def test_another_mask_is_refused_before_anything_is_written(config, tmp_path, mode):
    folder = tmp_path / "run"
    checkpoints = Checkpoints(folder / "checkpoints", best=0, every=1)
    arrays = {name: {"w": jnp.ones(3)} for name in ("params", "ema", "optimizer")}
    facts = {"step": {}, "loader": {}, "model": {}, "config": {}}
    checkpoints.save(1, arrays, facts)
    checkpoints.close()
    config.decode.affinity_mask = mask_of(tmp_path, (6, 4, 5))
    with pytest.raises(InputError, match=r"mask \(6, 4, 5\) does not match"):
        launch.run_mode(mode, config, str(folder))
    assert [p.name for p in folder.iterdir()] == ["checkpoints"]
