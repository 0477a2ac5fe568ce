"""Evaluating files of any program: the report, its tables, and the error lines."""

import json
import os
import pathlib
import pickle
import tempfile

import h5py
import hypothesis
import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax import artifacts
from nisbjax.config import base_config, flatten
from nisbjax.errors import InputError
from nisbjax.evaluate import stage
from nisbjax.evaluate.truth import Truth
from nisbjax.store import manifest_lines, volume, zarr_output

SHAPE = (12, 4, 4)


def made_truth() -> np.ndarray:
    """Two neurites along x: 3 in the half y < 2, 5 in the other."""
    labels = np.full(SHAPE, 5, np.uint16)
    labels[:, :2] = 3
    return labels


def made_segmentation() -> np.ndarray:
    """Neurite 3 is whole (1); neurite 5 is split at x = 6 (2 | 4), background at x 11."""
    labels = np.full(SHAPE, 1, np.uint32)
    labels[:6, 2:], labels[6:, 2:] = 2, 4
    labels[11, 2:] = 0
    return labels


@pytest.fixture
def inputs(tmp_path):
    """Skeletons through both neurites, 12 nodes each, voxels of 9 x 9 x 12 nm."""
    graph = nx.Graph()
    for neurite, y in ((3, 0), (5, 3)):
        for x in range(12):
            graph.add_node(
                (neurite, x),
                id=neurite,
                index_position=(x, y, x % 4),
                nm_position=(9.0 * x, 9.0 * y, 12.0 * (x % 4)),
            )
            if x:
                graph.add_edge((neurite, x - 1), (neurite, x))
    path = tmp_path / "skeleton.pkl"
    path.write_bytes(pickle.dumps(graph))
    return path


@pytest.fixture
def config():
    return base_config()


def run(config, out, *, segmentation="", skeleton="", label="", dense="", **options):
    """As the modes call it."""
    x, y, z = map(float, config.data.voxel_size_nm)
    truth = Truth(
        str(skeleton), str(label), (x, y, z), config.data.unlabeled, str(dense)
    )
    return stage.run(
        config.evaluate.metrics,
        out,
        segmentation,
        truth,
        memory_gb=config.decode.memory_gb,
        setting="liconn",
        config=flatten(config.to_dict()),
        **options,
    )


def as_zarr(folder, array):
    written = volume.create_zarr(
        folder / "decoded_x1_ch0-1-2_affinity_cc_0.7.zarr",
        shape=array.shape,
        dtype=array.dtype,
        chunks=(5, 2, 4),
        axes="xyz",
        attributes={"threshold": 0.7},
    )
    written.write(..., array)
    return written.source


def as_hdf5(folder, array):
    path = folder / "theirs.h5"
    with h5py.File(path, "w") as file:
        file["main"] = array
    return path


def as_npy(folder, array):
    path = folder / "theirs.npy"
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"parameters": ["attract", "repel"], "attract": 0.25, "repel": 1}, True),
        ({"parameters": "a=3"}, False),  # another program's
        ({"parameters": [["a"], "b", 3], "b": "c"}, False),
    ],
)
def test_a_segmentation_without_a_threshold(
    tmp_path, config, inputs, attributes, expected
):
    array = made_segmentation()
    written = volume.create_zarr(
        tmp_path / "decoded_x1_ch0-1-2-3-4-5_chain_0.25_1.zarr",
        shape=array.shape,
        dtype=array.dtype,
        chunks=(5, 2, 4),
        axes="xyz",
        attributes=attributes,
    )
    written.write(..., array)
    out = artifacts.VolumeDir(tmp_path / "seed5")
    config.evaluate.ceiling = False
    found = run(config, out, segmentation=written.source, skeleton=inputs)
    assert found["threshold"] is None
    named = {"attract": 0.25, "repel": 1}
    assert found.get("parameters") == (named if expected else None)
    text = out.evaluation(pathlib.Path(written.source), ".txt")
    said = "parameters: attract 0.25, repel 1 (default)" in text.read_text()
    assert said == expected


@pytest.mark.parametrize("form", [as_zarr, as_hdf5, as_npy])
def test_scores_are_those_by_hand_whatever_the_file(tmp_path, config, inputs, form):
    out = artifacts.VolumeDir(tmp_path / "seed5")
    found = run(
        config,
        out,
        segmentation=form(tmp_path, made_segmentation()),
        skeleton=inputs,
        threshold_origin="tuned on best_params.yaml",
    )
    # steps of one voxel in x and one in z: sqrt(9^2 + 12^2) = 15 nm, three times as
    # much in z on the way back (3 -> 0): sqrt(9^2 + 36^2)
    back = (81 + 36**2) ** 0.5
    # x 0..11: steps 4 and 8 go back
    whole = 9 * 15 + 2 * back
    # neurite 5: steps 1-5 inside segment 2 (one goes back), 6 split, 7-10 inside 4
    # (one goes back), 11 omitted
    kept = (4 * 15 + back) ** 2 + (3 * 15 + back) ** 2
    score = found["skeletons"]
    assert score["nerl"] == pytest.approx((whole**2 + kept) / (2 * whole**2))
    assert score["n_splits"] == 1
    assert score["coverage"] == pytest.approx(1 / 24)
    assert found["threshold_origin"] == "tuned on best_params.yaml"


def test_report_and_tables_lie_beside_each_other(tmp_path, config, inputs):
    out = artifacts.VolumeDir(tmp_path / "seed5")
    segmentation = as_zarr(tmp_path, made_segmentation())
    run(config, out, segmentation=segmentation, skeleton=inputs)
    tag = "eval_decoded_x1_ch0-1-2_affinity_cc_0.7"
    text = (out.path / f"{tag}.txt").read_text()
    lines = text.splitlines()
    assert lines[0] == lines[2] == lines[5] == lines[-1] == "=" * 80
    assert lines[1] == "EVALUATION METRICS"
    assert lines[4] == "Volume: seed5"
    assert "Neurite ERL Metrics:" in lines
    # the reference's lines, its columns
    for label in ("NERL", "Pred ERL", "GT ERL", "Skeletons", "Graph"):
        (line,) = [line for line in lines if line.startswith(f"  {label}:")]
        assert line[32] != " "
        assert line[31] == " "
    with_nerl = [line for line in lines if line.startswith("  NERL")]
    assert len(with_nerl) == 6
    assert all("on background: 4.2 % of nodes" in line for line in with_nerl)
    assert "threshold: 0.7 (default)" in text
    assert "BANIS-L: NERL 12.9 +- 0.8 %" in text
    assert "this run: n = 1, default" in text

    facts = json.loads((out.path / f"{tag}.json").read_text())
    assert facts["config"]["decode.threshold"] == 0.75
    assert facts["threshold"] == 0.7
    assert len(facts["segmentation_fingerprint"]) == len(facts["skeleton_sha256"]) == 64
    assert f"{facts['skeletons']['nerl']:.6f}" in text
    with np.load(out.path / f"{tag}_nerl_per_gt_erl.npz") as per_gt:
        assert per_gt["gt_segment_id"].tolist() == [3, 5]
        assert per_gt["erl"].shape == (2, 2)
        assert per_gt["erl"][0, 0] == pytest.approx(per_gt["erl"][0, 1])
    with np.load(out.path / f"{tag}_edges.npz") as edges:
        names = edges["status_names"][edges["status"]]
        assert (names == "correct").sum() == 11 + 9
        assert edges["node_segments"].tolist()[12:] == [2] * 6 + [4] * 5 + [0]
    for suffix in ("_skeletons.csv", "_mergers.csv", "_splits.csv"):
        assert (out.path / (tag + suffix)).is_file()
    assert not list(out.path.glob("*.partial"))


def test_ceiling_oracles_and_the_share_of_the_largest_are_in_the_report(
    tmp_path, config, inputs
):
    found = run(
        config,
        artifacts.VolumeDir(tmp_path / "seed5"),
        segmentation=as_zarr(tmp_path, made_segmentation()),
        skeleton=inputs,
        dense=as_npy(tmp_path, made_truth()),
        components=lambda labels, at: labels.read()[tuple(at.T)],
    )
    score = found["skeletons"]
    assert score["nerl_ceiling"] == score["nerl_oracle_both"] == pytest.approx(1)
    # The node on background, filled, joins segment 2 (6 of 11 nodes), across a split.
    assert score["nerl_oracle_fill"] == pytest.approx(score["nerl"])
    text = next((tmp_path / "seed5").glob("eval_*.txt")).read_text()
    assert "Ceiling (the truth):          1.000000" in text
    assert "one skeleton has 50 % of the weight" in text


def test_dense_labels_alone_and_together(tmp_path, config, inputs):
    labels = as_npy(tmp_path, made_truth())
    segmentation = as_hdf5(tmp_path, made_segmentation())
    out = artifacts.VolumeDir(tmp_path / "seed5")
    both = run(config, out, segmentation=segmentation, skeleton=inputs, label=labels)
    assert both["dense"]["voi_merge"] == pytest.approx(0)
    config.evaluate.metrics = ("adapted_rand", "voi", "instance_accuracy")
    alone = run(config, out, segmentation=segmentation, label=labels)
    assert "skeletons" not in alone
    text = (out.path / "eval_theirs.txt").read_text()
    assert (
        f"  Adapted Rand Error:           {alone['dense']['adapted_rand_error']:.6f}"
        in text
    )
    assert "Neurite" not in text


@pytest.mark.parametrize(
    ("metrics", "arguments", "message"),
    [
        (("nerl",), {}, "no segmentation to evaluate; give --config.evaluate.segm"),
        (("nerl",), {"segmentation": "s"}, "asks for nerl, but there is no skeleton"),
        (("voi",), {"segmentation": "s"}, "asks for voi, but there are no dense label"),
        (
            ("adapted_rand",),
            {"segmentation": "s", "skeleton": "k"},
            "asks for adapted_rand, but there are no dense labels",
        ),
        (("nerI",), {}, "evaluate.metrics is 'nerI'; wanted one of nerl, voi, adapted"),
        (("nerl",), {"segmentation": "s", "skeleton": "k"}, "no volume at s"),
    ],
)
def test_what_is_missing_is_said(tmp_path, config, metrics, arguments, message):
    config.evaluate.metrics = metrics
    out = artifacts.VolumeDir(tmp_path / "seed5")
    with pytest.raises(InputError, match=message):
        run(config, out, **arguments)
    assert not out.path.exists()


def test_an_unfinished_segmentation_is_not_scored(tmp_path, config, inputs):
    segmentation = as_zarr(tmp_path, made_segmentation())
    manifest_lines.path_inside(segmentation).write_text('{"fingerprint": {}}\n')
    with pytest.raises(InputError, match="is unfinished"):
        run(
            config,
            artifacts.VolumeDir(tmp_path / "out"),
            segmentation=segmentation,
            skeleton=inputs,
        )


def test_skeletons_of_another_volume(tmp_path, config, inputs):
    segmentation = as_npy(tmp_path, made_segmentation()[:6])
    with pytest.raises(InputError, match="12 of 24 nodes of .* lie outside"):
        run(
            config,
            artifacts.VolumeDir(tmp_path / "out"),
            segmentation=segmentation,
            skeleton=inputs,
        )


def test_a_voxel_size_that_disagrees_is_in_the_report(tmp_path, config, inputs):
    config.data.voxel_size_nm = (18.0, 18.0, 25.0)
    found = run(
        config,
        artifacts.VolumeDir(tmp_path / "out"),
        segmentation=as_npy(tmp_path, made_segmentation()),
        skeleton=inputs,
    )
    assert any("data.voxel_size_nm is (18, 18, 25)" in note for note in found["notes"])


def test_a_second_evaluation_remembers_where_the_threshold_came_from(
    tmp_path, config, inputs
):
    out = artifacts.VolumeDir(tmp_path / "out")
    segmentation = as_zarr(tmp_path, made_segmentation())
    given = {"segmentation": segmentation, "skeleton": inputs}
    found = run(config, out, **given, threshold_origin="")
    assert found["threshold_origin"] == "of unknown origin"
    run(config, out, **given, threshold_origin="tuned on a.yaml")
    found = run(config, out, **given, threshold_origin="")
    assert found["threshold_origin"] == "tuned on a.yaml"
    as_zarr(tmp_path, np.ones(SHAPE, np.uint32))
    found = run(config, out, **given, threshold_origin="")
    assert found["threshold_origin"] == "of unknown origin"


def test_an_evaluation_of_another_process_is_left_to_it(
    tmp_path, config, inputs, held_elsewhere
):
    out = artifacts.VolumeDir(tmp_path / "seed5")
    process = held_elsewhere(out.path / "eval_theirs.lock")
    file = as_npy(tmp_path, made_segmentation())
    with pytest.raises(
        InputError, match=f"eval_theirs.txt is being written by process {process} on "
    ):
        run(config, out, segmentation=file, skeleton=inputs)
    assert os.listdir(out.path) == ["eval_theirs.lock"]


def test_a_pipe_in_the_way_is_refused_before_anything_is_scored(
    tmp_path, config, inputs
):
    out = artifacts.VolumeDir(tmp_path)
    os.mkfifo(tmp_path / "eval_theirs_splits.csv")
    file = as_npy(tmp_path, made_segmentation())
    there = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match="eval_theirs_splits.csv is a device, pipe"):
        run(config, out, segmentation=file, skeleton=inputs)
    assert sorted(os.listdir(tmp_path)) == there


def test_dense_metrics_need_no_skeleton_on_disk(tmp_path, config):
    # Truth 3 | 5, segments 1 | 2 4: recall loses the split of neurite 5, precision none.
    np.save(tmp_path / "truth.npy", made_truth())
    config.evaluate.metrics = ("voi", "adapted_rand", "instance_accuracy")
    arguments = {
        "segmentation": as_npy(tmp_path, made_segmentation()),
        "skeleton": tmp_path / "gone" / "skeleton.pkl",
        "label": tmp_path / "truth.npy",
    }
    out = artifacts.VolumeDir(tmp_path / "seed5")
    found = run(config, out, **arguments)
    assert found["dense"]["voi_merge"] == pytest.approx(0, abs=1e-12)
    assert "skeletons" not in found and "skeleton" not in found
    config.evaluate.metrics = ("nerl", "voi")
    with pytest.raises(InputError, match="skeleton.pkl"):
        run(config, out, **arguments)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@hypothesis.settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(["threshold", "note", "segments"]), _ANY))
def test_no_attribute_costs_a_report(attributes):
    """Twelve voxels of one segment and no truth but themselves."""
    labels = np.ones(SHAPE, np.uint32)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        source = as_zarr(path, labels)
        zarr_output.write_attributes(source, {"axes": "xyz", **attributes})
        config = base_config()
        config.evaluate.metrics = ("voi",)
        found = run(
            config,
            artifacts.VolumeDir(path),
            segmentation=source,
            label=source,
        )
        assert found["dense"]["voi_sum"] == 0
        (written,) = path.glob("eval_*.json")
        assert json.loads(written.read_text())["dense"]["voi_sum"] == 0
        (written,) = path.glob("eval_*.txt")
        assert "VOI Total" in written.read_text()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.75, "threshold: 0.75 ("),
        ("0.75", "threshold: '0.75' ("),
        ([0.5, 0.6], "threshold: [0.5, 0.6] ("),
        (None, ""),
    ],
)
def test_a_threshold_of_any_type_is_in_the_report(tmp_path, config, value, said):
    config.evaluate.metrics = ("voi",)
    source = as_zarr(tmp_path, np.ones(SHAPE, np.uint32))
    zarr_output.write_attributes(source, {"axes": "xyz", "threshold": value})
    out = artifacts.VolumeDir(tmp_path)
    run(config, out, segmentation=source, label=source)
    (written,) = tmp_path.glob("eval_*.txt")
    assert said in written.read_text()
    assert ("threshold: " in written.read_text()) == bool(said)


@pytest.mark.parametrize(
    "content", ["5", "null", "{", '{"segmentation_fingerprint": 3}', "[[[[", "\x00"]
)
def test_an_earlier_report_of_any_content_is_replaced(tmp_path, config, content):
    config.evaluate.metrics = ("voi",)
    source = as_zarr(tmp_path, np.ones(SHAPE, np.uint32))
    out = artifacts.VolumeDir(tmp_path)
    path = out.evaluation(pathlib.Path(source), ".json")
    path.write_text(content)
    run(config, out, segmentation=source, label=source, threshold_origin="")
    assert json.loads(path.read_text())["threshold_origin"] == stage.UNKNOWN_THRESHOLD
