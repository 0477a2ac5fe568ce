"""Mode compare: two evaluations of one volume, and what does not belong together."""

import json
import pathlib
import pickle
import shutil

import networkx as nx
import numpy as np
import pytest

from nisbjax import launch
from nisbjax.artifacts import VolumeDir
from nisbjax.errors import InputError
from nisbjax.evaluate import stage
from nisbjax.evaluate.truth import Truth
from nisbjax.store.volume import create_zarr

CONFIG = {"data.voxel_size_nm": [10.0, 10.0, 10.0]}


def skeleton_at(path, n=4):
    """Two lines of n nodes along x, 10 nm apart, at y 0 and 1."""
    graph = nx.Graph()
    for y in (0, 1):
        for x in range(n):
            place = {"index_position": (x, y, 0), "nm_position": (10 * x, 10 * y, 0)}
            graph.add_node(n * y + x, id=y + 1, **place)
            if x:
                graph.add_edge(n * y + x - 1, n * y + x)
    path.write_bytes(pickle.dumps(graph))
    return path


@pytest.fixture
def evaluated(tmp_path):
    """A function that scores rows of labels, x by y, and returns the JSON's path."""
    skeleton = skeleton_at(tmp_path / "skeleton.pkl")

    def evaluated_(
        name, rows, skeleton=skeleton, box="", truth_labels="", metrics=("nerl",)
    ):
        path = tmp_path / f"{name}.zarr"
        labels = np.array(rows, np.uint32).T[..., None]
        create_zarr(
            path,
            shape=labels.shape,
            dtype="uint32",
            chunks=labels.shape,
            axes="xyz",
            attributes={"box": box, "volume_shape": [4, 2, 1]} if box else {},
        ).write(..., labels)
        out = VolumeDir(tmp_path / name)
        truth = Truth(
            "" if truth_labels else str(skeleton), truth_labels, (10.0, 10.0, 10.0)
        )
        stage.run(metrics, out, path, truth, memory_gb=1.0, config=CONFIG)
        return str(out.evaluation(path, ".json"))

    return evaluated_


def test_two_segmentations_by_hand(evaluated, tmp_path, capsys):
    """The first cuts line 1 in halves (10^2 + 10^2 of 30^2) and leaves line 2 on
    background but for two nodes (10^2); the second has line 1 whole and gives the two
    nodes of line 2 to 5, of which it holds two and line 1 four."""
    a = evaluated("a", [[5, 5, 6, 6], [7, 7, 0, 0]])
    b = evaluated("b", [[5, 5, 5, 5], [7, 7, 5, 5]])
    found = launch.run_paths("compare", [a, b], str(tmp_path))
    assert (found["n_better"], found["n_worse"]) == (0, 1)
    assert (found["n_background"], found["n_own"], found["n_other"]) == (2, 0, 2)
    # a: (200 + 100) / 1800; b: line 1 is merged (0), line 2 keeps the 10 nm in 7.
    assert found["nerl_difference"] == pytest.approx((100 - 300) / 1800)
    assert "of those 100.0 % another skeleton's" in capsys.readouterr().out
    written = json.loads((tmp_path / "compare.json").read_text())
    assert written["n_worse"] == 1 and written["first"]["evaluation"] == a
    rows = (tmp_path / "compare_skeletons.csv").read_text().splitlines()
    assert rows[0] == "skeleton,length_nm,nerl_first,nerl_second,difference"
    assert rows[1:] == ["1,30,0.222222,0,-0.222222", "2,30,0.111111,0.111111,0"]
    assert (tmp_path / "compare.txt").exists()


def labels_at(path, rows):
    np.save(path, np.array(rows, np.uint32).T[..., None])
    return str(path)


def test_scores_by_labels_alone(evaluated, tmp_path, capsys):
    """Labels 1 1 1 1 and 2 2 2 2. The first halves label 1: 4 of 8 voxels are split by one
    bit, 0.5 bit in all; the second is the truth."""
    truth = labels_at(tmp_path / "labels.npy", [[1] * 4, [2] * 4])
    by = {"truth_labels": truth, "metrics": ("voi",)}
    a = evaluated("a", [[5, 5, 6, 6], [7] * 4], **by)
    b = evaluated("b", [[5] * 4, [7] * 4], **by)
    found = launch.run_paths("compare", [a, b], str(tmp_path / "out"))
    assert found["dense"]["voi_split"] == {
        "first": 0.5,
        "second": 0.0,
        "difference": -0.5,
    }
    assert found["label"] == truth
    printed = capsys.readouterr().out
    assert "voi_split   0.5000   0.0000         -0.5000  better\n" in printed
    assert "voi_merge   0.0000   0.0000         +0.0000  equal\n" in printed
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "compare.json",
        "compare.txt",
    ]
    by_skeletons = evaluated("c", [[5] * 4, [7] * 4])
    with pytest.raises(InputError, match="eval_a.json is scored by labels alone, and"):
        launch.run_paths("compare", [by_skeletons, a])
    by["metrics"] = ("adapted_rand",)
    rand = evaluated("d", [[5] * 4, [7] * 4], **by)
    with pytest.raises(InputError, match="have no score in common; evaluate both"):
        launch.run_paths("compare", [a, rand])
    by["truth_labels"] = labels_at(tmp_path / "other.npy", [[1] * 4, [3] * 4])
    with pytest.raises(InputError, match="are scored by different labels"):
        launch.run_paths("compare", [rand, evaluated("e", [[5] * 4, [7] * 4], **by)])
    facts = json.loads(pathlib.Path(b).read_text())
    facts["config"]["data.unlabeled"] = "7"
    pathlib.Path(b).write_text(json.dumps(facts))
    with pytest.raises(
        InputError, match="leave out other labels .data.unlabeled: None"
    ):
        launch.run_paths("compare", [a, b])


@pytest.fixture
def pair(evaluated):
    return [evaluated(n, [[5, 5, 6, 6], [7, 7, 0, 0]]) for n in ("a", "b")]


@pytest.mark.parametrize("moved", [False, True], ids=["another folder", "moved"])
def test_from_another_folder_than_it_was_scored_in(
    evaluated, tmp_path, monkeypatch, moved
):
    """Paths are relative to the folder of the scoring, or gone with what was moved."""
    rows = [[1, 1, 1, 1], [2, 2, 2, 2]]
    monkeypatch.chdir(tmp_path)
    paths = [evaluated(name, rows, pathlib.Path("skeleton.pkl")) for name in "ab"]
    facts = [json.loads(pathlib.Path(path).read_text()) for path in paths]
    for path, fact, name in zip(paths, facts, "ab", strict=True):
        fact["segmentation"] = f"gone/{name}.zarr" if moved else f"{name}.zarr"
        pathlib.Path(path).write_text(json.dumps(fact))
    assert facts[0]["skeleton"] == "skeleton.pkl"
    if moved:
        for name in ("a.zarr", "b.zarr"):
            shutil.move(name, tmp_path / name[0])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    result = launch.run_paths("compare", paths, str(tmp_path))
    assert result["first"]["segmentation"].endswith("a.zarr")
    assert result["nerl_difference"] == 0


def test_other_numbers_of_evaluations(pair):
    with pytest.raises(InputError, match="names 1 evaluations; wanted two"):
        launch.run_paths("compare", pair[:1])


def test_other_skeletons(pair, evaluated, tmp_path):
    other = skeleton_at(tmp_path / "other.pkl", 3)
    c = evaluated("c", [[5, 5, 6, 6], [7, 7, 0, 0]], other)
    with pytest.raises(InputError, match="are scored by different skeletons"):
        launch.run_paths("compare", [pair[0], c])


def _without_score(pair, folder):
    facts = json.loads(pathlib.Path(pair[1]).read_text())
    del facts["skeletons"]
    pathlib.Path(pair[1]).write_text(json.dumps(facts))


def _changed_segmentation(pair, folder):
    shutil.rmtree(folder / "b.zarr")
    shape = (5, 2, 1)
    create_zarr(
        folder / "b.zarr", shape=shape, dtype="uint32", chunks=shape, axes="xyz"
    ).write(..., np.ones(shape, np.uint32))


def test_other_regions_with_as_many_nodes(evaluated, tmp_path):
    """x 0..1 and x 2..3 of the same volume."""
    a, b = (
        evaluated(name, [[5, 5], [7, 7]], box=f"{x}:{x + 2},0:2,0:1")
        for name, x in (("a", 0), ("b", 2))
    )
    with pytest.raises(InputError, match=r"different regions \(0:2,0:2,0:1 of .* 2:4,"):
        launch.run_paths("compare", [a, b])


def _moved(pair, folder):
    (folder / "b.zarr").rename(folder / "away.zarr")


def _no_skeleton(pair, folder):
    (folder / "skeleton.pkl").unlink()


def _changed_skeleton(pair, folder):
    skeleton_at(folder / "skeleton.pkl", 3)


def _no_json(pair, folder):
    pathlib.Path(pair[1]).write_text("{}")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (_without_score, "b/eval_b.json has no score by skeletons"),
        (
            _changed_segmentation,
            "b.zarr, scored in .*b/eval_b.json, has changed; evaluate it again",
        ),
        (_moved, "no segmentation at .*b.zarr"),
        (_no_skeleton, "no skeleton at .*skeleton.pkl, by which"),
        (_changed_skeleton, "skeleton.pkl has changed since .*a/eval_a.json"),
        (_no_json, "wanted an eval_.*json of --mode=evaluate"),
    ],
)
def test_what_is_gone_or_has_changed_is_named(pair, tmp_path, broken, said):
    broken(pair, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=said):
        launch.run_paths("compare", pair)
    assert sorted(tmp_path.rglob("*")) == before
