"""Data, configuration and folder of a run that is validated."""

import json
import pickle

import networkx as nx
import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.modes import validate
from nisbjax.store.volume import create_zarr

SHAPE = (12, 9, 8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two bright neurites along x, 4 x 8 voxels thick, and a dark plane between them."""
    folder = tmp_path_factory.mktemp("nisb")
    labels = np.ones(SHAPE, np.uint8)
    labels[:, 4], labels[:, 5:] = 0, 2
    image = np.where(labels, 250, 5).astype(np.uint8)[..., None]
    for name, values in (("img", image), ("seg", labels)):
        create_zarr(
            folder / "val/seed5/data.zarr" / name,
            shape=values.shape,
            dtype="uint8",
            chunks=(6, 6, 6, 1)[: values.ndim],
            axes="xyzc"[: values.ndim],
        ).write(..., values)
    graph = nx.Graph()
    for neurite, y in ((1, 1), (2, 7)):
        for x in range(12):
            place = (neurite, x)
            graph.add_node(place, id=neurite, index_position=(x, y, 3))
            graph.nodes[place]["nm_position"] = (9.0 * x, 9.0 * y, 36.0)
            if x:
                graph.add_edge((neurite, x - 1), place)
    (folder / "val/seed5/skeleton.pkl").write_bytes(pickle.dumps(graph))
    return folder


@pytest.fixture
def settings(root):
    c = base_config()
    c.data.root = str(root)
    c.data.patch = (8, 8, 8)
    c.model.out_channels = 3
    c.data.offsets = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    c.decode.affinity_mask = ""
    c.predict.batch_per_device = 1
    c.tune.thresholds = (0.5, 0.9)
    c.validate.poll_seconds = 0.01
    c.train.steps = 99
    return c


@pytest.fixture
def folder(tmp_path, settings):
    """A run of 20 steps, as far as its config."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"train.steps": 20}))
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Scores nothing: for tests of what is scored when."""

    def score(settings, place, found, redo):
        row = {"step": int(found.name), "threshold": 0.75, "nerl": 0.5}
        return row | {"best_threshold": 0.5, "best_nerl": 1.0}

    monkeypatch.setattr(validate, "_score", score)
