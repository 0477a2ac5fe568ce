"""Mode skeletonize on a configuration's volumes and on named labels, then a score."""

import json

import numpy as np
import pytest
from small_labels import config_of, rod, saved, two_touching

from nisbjax import launch, skeletons
from nisbjax.errors import InputError

pytest.importorskip("kimimaro")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """One file of labels, val and test boxes of it; val's skeleton is named."""
    monkeypatch.chdir(tmp_path)
    config = config_of()
    config.name = "mine"
    config.data.kind = "files"
    config.data.root = str(tmp_path)
    for split, box in (("val", "0:24,0:14,0:9"), ("test", "24:48,0:14,0:9")):
        config.data[split].image = "em.npy"
        config.data[split].label = "labels.npy"
        config.data[split].box = box
    config.data.val.skeleton, config.data.test.skeleton = "val.pkl", ""
    saved(tmp_path, two_touching())
    return config


def test_from_labels_to_a_nerl_of_one(tmp_path, config, capsys):
    val, test = launch.run_mode("skeletonize", config)
    assert val["output"] == str(tmp_path / "val.pkl")
    assert test["output"] == "outputs/mine/skeletons/test/skeleton.pkl"
    printed = capsys.readouterr().out
    made = tmp_path / test["output"]
    assert f"        next  --config.data.test.skeleton={made}\n" in printed
    assert printed.count("next") == 1  # val finds its own by itself
    assert "   skeletons  2\n" in printed
    # what the line says, done; the labels themselves are scored
    config.evaluate.segmentation = str(tmp_path / "labels.npy")
    config.evaluate.skeleton = str(made)
    config.evaluate.metrics = ("nerl",)
    launch.run_mode("evaluate", config, str(tmp_path / "run"))
    (path,) = (tmp_path / "run").rglob("eval_*.json")
    facts = json.loads(path.read_text())
    assert facts["skeletons"]["nerl"] == 1.0 and facts["skeletons"]["n_skeletons"] == 2
    # again: all is there
    assert launch.run_mode("skeletonize", config) == [val, test]


def test_named_labels(tmp_path, config, capsys, caplog):
    saved(tmp_path, rod())
    config.skeletonize.update({"label": "labels.npy", "roi": "0:20,0:9,0:9"})
    (facts,) = launch.run_mode("skeletonize", config)
    assert facts["output"] == "outputs/mine/skeletons/labels/skeleton.pkl"
    assert "--config.evaluate.skeleton=" in capsys.readouterr().out
    config.skeletonize.output = "a/b.pkl"
    launch.run_mode("skeletonize", config, "anywhere")
    found = skeletons.load("a/b.pkl")
    assert found.index_position[:, 0].max() == 19
    # Another part, made anew only where that is asked for.
    config.skeletonize.also = ("swc",)
    launch.run_mode("skeletonize", config, "anywhere")
    config.skeletonize.update({"roi": "0:10,0:9,0:9", "also": ()})
    with pytest.raises(InputError, match="region.* add --redo=skeletonize to replace"):
        launch.run_mode("skeletonize", config, "anywhere")
    caplog.set_level("INFO")
    launch.run_mode("skeletonize", config, "anywhere", redo=["skeletonize"])
    said = caplog.messages
    first = "--redo=skeletonize replaces a/b.pkl, a/b.npz, a/b_swc"
    assert said.index(first) < said.index("replacing a/b.pkl, as --redo asks")
    assert skeletons.load("a/b.pkl").index_position[:, 0].max() == 9
    assert not (tmp_path / "a" / "b_swc").exists()
    (tmp_path / "a" / "b.pkl").write_bytes(b"somebody's")
    with pytest.raises(InputError, match="was changed since"):
        launch.run_mode("skeletonize", config, "anywhere", redo=["skeletonize"])


def test_named_labels_of_a_split_have_its_axes(tmp_path, config):
    """Stored z y x, as `data.val.axes` says: the 40 voxels along x are those of the last axis."""
    saved(tmp_path, rod().T)
    config.data.val.axes = "zyx"
    config.skeletonize.update(
        {"label": str(tmp_path / "labels.npy"), "output": "a.pkl"}
    )
    launch.run_mode("skeletonize", config)
    assert skeletons.load("a.pkl").index_position[:, 0].max() == 39


def test_skeletons_that_are_there_are_left(tmp_path, config):
    (tmp_path / "val.pkl").write_bytes(b"somebody's")
    (test,) = launch.run_mode("skeletonize", config)
    assert "test" in test["output"]
    assert (tmp_path / "val.pkl").read_bytes() == b"somebody's"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"skeletonize.label": "none.h5"},
            "no labels at none.h5, which skeletonize.label",
        ),
        (
            {"data.val.label": "", "data.test.label": "no"},
            "no labels without skeletons: n",
        ),
        (
            {"skeletonize.output": "a.pkl"},
            "is a.pkl, and there are labels of val and test",
        ),
        (
            {"data.test.skeleton": "./val.pkl"},
            "val.pkl would hold the skeletons of val and of test; name another file",
        ),
        (
            {"skeletonize.box_shape": (4, 8, 8)},
            r"box_shape is \(4, 8, 8\); wanted three",
        ),
    ],
)
def test_refused(tmp_path, config, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        launch.run_mode("skeletonize", config)
    assert [p.name for p in tmp_path.iterdir()] == ["labels.npy"]


def test_one_output_for_the_only_volume(tmp_path, config):
    config.data.val.label = ""
    config.skeletonize.output = "mine.pkl"
    launch.run_mode("skeletonize", config)
    assert np.isin(skeletons.load("mine.pkl").node_id, [3, 5]).all()
