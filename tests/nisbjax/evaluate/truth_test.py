"""Which metrics can be computed from which truth, asked before anything is scored."""

import dataclasses
import pickle

import networkx as nx
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.evaluate import stage
from nisbjax.evaluate.truth import Truth, require_metrics, settled
from nisbjax.store.volume import from_array, open_labels

NOTHING = Truth("", "", (9.0, 9.0, 20.0))


@pytest.fixture
def truth(tmp_path):
    """A skeleton of voxels x 0-3 without nm positions, and labels of 4 x 2 x 1 voxels."""
    graph = nx.Graph()
    for x in range(4):
        graph.add_node(x, id=1, index_position=(x, 1, 0))
    graph.add_edges_from((x, x + 1) for x in range(3))
    (tmp_path / "skeleton.pkl").write_bytes(pickle.dumps(graph))
    np.save(tmp_path / "labels.npy", np.ones((4, 2, 1), np.uint8))
    return dataclasses.replace(
        NOTHING,
        skeleton=str(tmp_path / "skeleton.pkl"),
        label=str(tmp_path / "labels.npy"),
    )


def test_positions_come_from_the_voxel_size_where_a_file_has_none(truth):
    # voxel (3, 1, 0) of 9 x 9 x 20 nm
    assert truth.load_skeletons().position_nm[3].tolist() == [27, 9, 0]


@pytest.mark.parametrize(
    ("metrics", "missing", "message"),
    [
        (
            ("nerl",),
            "skeleton",
            "asks for nerl, but there is no skeleton; give --config",
        ),
        (("nerl", "voi"), "skeleton", "asks for nerl, but there is no skeleton"),
        (
            ("voi",),
            "skeleton label",
            "neither skeletons nor dense labels for voi; give --config.evaluate.skele",
        ),
        (("adapted_rand",), "label", "asks for adapted_rand, but there are no dense"),
        (("voi",), "label", ""),  # of skeletons
        (("voi", "adapted_rand"), "skeleton", ""),
    ],
)
def test_what_metrics_are_computed_from(truth, metrics, missing, message):
    known = dataclasses.replace(truth, **dict.fromkeys(missing.split(), ""))
    if not message:
        stage.check(metrics, known)
        return
    with pytest.raises(InputError, match=message):
        stage.check(metrics, known)


def test_what_auto_becomes():
    assert settled(["auto"], "skeleton.pkl") == ("nerl", "voi")
    assert settled(["auto"], "") == ("adapted_rand", "voi")
    assert settled(["instance_accuracy", "auto", "voi"], "") == (
        "instance_accuracy",
        "adapted_rand",
        "voi",
    )
    assert settled(["voi"], "") == ("voi",)


def test_words_that_are_no_metrics(truth):
    require_metrics(["auto", "nerl", "voi", "adapted_rand", "instance_accuracy"])
    with pytest.raises(
        InputError, match="evaluate.metrics is 'nerI'; wanted one of au"
    ):
        stage.check(["nerI"], truth)


def test_skeletons_that_are_not_there(truth, tmp_path, caplog):
    gone = dataclasses.replace(truth, skeleton=str(tmp_path / "gone.pkl"))
    with pytest.raises(InputError, match="no skeleton at .*gone.pkl; check data.root"):
        gone.require_readable(["nerl"])
    assert gone.of_use_to(["voi"]).skeleton == ""
    assert "does not need them" in caplog.text or "do not need them" in caplog.text
    # they are asked for, or nothing is scored without them
    assert gone.of_use_to(["nerl", "voi"]) == gone
    alone = dataclasses.replace(gone, label="")
    assert alone.of_use_to(["voi"]) == alone
    assert truth.of_use_to(["voi"]) == truth


def test_truth_of_another_volume(truth):
    other = from_array(np.ones((3, 2, 1), np.uint8), "xyz")
    truth.require_readable(["nerl"], open_labels(truth.label))
    with pytest.raises(InputError, match="1 of 4 nodes of .* lie outside"):
        truth.require_readable(["nerl"], other)
    dense = dataclasses.replace(truth, skeleton="")
    with pytest.raises(
        InputError, match=r"labels.npy have shape \(4, 2, 1\), and .* \(3, 2, 1\); wan"
    ):
        dense.require_readable(["voi"], other)
