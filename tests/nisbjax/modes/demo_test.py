"""The demo's bounds on a cube whose intensity decides everything, and its table."""

import pickle

import networkx as nx
import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.modes import demo
from nisbjax.store.volume import create_zarr

SHAPE = (12, 9, 8)


@pytest.fixture
def config(tmp_path):
    """Two bright neurites along x, and a dark plane y = 4 between them."""
    labels = np.ones(SHAPE, np.uint8)
    labels[:, 4], labels[:, 5:] = 0, 2
    image = np.where(labels, 250, 5).astype(np.uint8)[..., None]
    for name, values in (("img", image), ("seg", labels)):
        create_zarr(
            tmp_path / "test/seed6/data.zarr" / name,
            shape=values.shape,
            dtype="uint8",
            chunks=values.shape,
            axes="xyzc"[: values.ndim],
        ).write(..., values)
    graph = nx.Graph()
    for neurite, y in ((1, 1), (2, 7)):
        for x in range(12):
            at = (x, y, 3)
            nm = tuple(9.0 * a for a in at)
            graph.add_node((neurite, x), id=neurite, index_position=at, nm_position=nm)
            if x:
                graph.add_edge((neurite, x - 1), (neurite, x))
    (tmp_path / "test/seed6/skeleton.pkl").write_bytes(pickle.dumps(graph))
    config = base_config()
    config.data.root = str(tmp_path)
    config.data.test.label = "test/seed6/data.zarr/seg"
    return config


def test_intensity_that_decides_is_as_good_as_the_truth(config):
    rows = demo.bounds(config)
    assert rows["intensity"]["nerl"] == rows["truth"]["nerl"] == 1
    assert rows["truth"]["threshold"] == 0.5
    assert rows["truth"]["coverage"] == 0


def test_the_configured_decoder_comes_last_and_keeps_its_keys():
    config = base_config()
    assert demo._methods(config) == ["chain3", "affinity_cc"]
    config.predict.channels = (0, 1, 2, 3, 4, 5)
    assert demo._methods(config) == ["chain3", "chain", "affinity_cc"]
    config.decode.update({"method": "chain", "output": "labels.zarr"})
    config.tune.update({"study": "s", "space": (("attract", 0.1, 0.3, 2),)})
    assert demo._methods(config) == ["affinity_cc", "chain3", "chain"]
    assert demo._decoded_by(config, "chain") is config
    other = demo._decoded_by(config, "chain3")
    assert (other.decode.method, other.decode.output) == ("chain3", "")
    assert (other.tune.study, other.tune.space) == ("s_chain3", ())
    config.decode.affinity_mask = ""
    assert demo._decoded_by(config, "chain3").decode.affinity_mask == ""
    assert demo._decoded_by(config, "affinity_cc").decode.affinity_mask == "auto"
    assert config.decode.output == "labels.zarr"


@pytest.mark.parametrize(
    ("objective", "best"),
    [("nerl_mean", 0.5), ("adapted_rand", 0.5), ("nerl", 0.75), ("voi", 0.25)],
)
def test_the_untrained_threshold_without_a_score_of_labels(objective, best):
    """Rows by skeletons have no adapted Rand error; the first is the best by VOI alone."""
    rows = [
        {"threshold": 0.25, "nerl": 0.0, "nerl_mean": 0.0, "voi_sum": 1.0},
        {"threshold": 0.5, "nerl": 0.25, "nerl_mean": 0.5, "voi_sum": 2.0},
        {"threshold": 0.75, "nerl": 0.5, "nerl_mean": 0.25, "voi_sum": 2.0},
    ]
    assert demo._best(objective, rows)["threshold"] == best


def test_the_table_has_a_line_for_each_row():
    rows = {"trained": {"nerl": 0.5, "voi_sum": 1.25, "n_splits": 3, "coverage": -0.0}}
    head, line = demo.table(rows).splitlines()
    assert head.split() == [
        *("test", "cube", "NERL", "mean", "VOI", "split", "merge", "mergers", "splits"),
        *("on", "bg", "threshold"),
    ]
    assert line.split() == [
        "trained",
        "0.500",
        "-",
        "1.25",
        "-",
        "-",
        "-",
        "3",
        "0.0%",
        "-",
    ]
