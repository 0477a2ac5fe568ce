"""Evaluating files of any program: the report, its tables, and the error lines."""

import json

import numpy as np
import pytest
from scored_files import (
    as_hdf5,
    as_npy,
    as_zarr,
    made_segmentation,
    made_truth,
    run,
)

from nisbjax import artifacts, skeletons
from nisbjax.errors import InputError
from nisbjax.skeletons import flat_file, swc
from nisbjax.store import manifest_lines


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


@pytest.mark.parametrize("write", [swc.write, flat_file.write])
def test_skeletons_of_any_format_score_alike(tmp_path, config, inputs, write):
    segmentation = as_npy(tmp_path, made_segmentation())
    theirs = tmp_path / ("theirs.npz" if write is flat_file.write else "theirs")
    write(skeletons.load(inputs), theirs)
    scores = []
    for name, skeleton in (("a", inputs), ("b", theirs)):
        out = artifacts.VolumeDir(tmp_path / name)
        found = run(config, out, segmentation=segmentation, skeleton=skeleton)
        scores.append(found["skeletons"])
        # known again, so that --mode=compare takes nothing else for it
        assert found["skeleton_sha256"] == skeletons.content_hash(skeleton)
    assert scores[0]["nerl"] == pytest.approx(scores[1]["nerl"])
    assert scores[0]["n_splits"] == scores[1]["n_splits"]


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
    assert facts["segmentation_fingerprint"].startswith("2:")
    assert len(facts["skeleton_sha256"]) == 64
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
    text = (out.path / "eval_theirs_h5.txt").read_text()
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
        (("voi",), {"segmentation": "s"}, "neither skeletons nor dense labels for voi"),
        (
            ("adapted_rand",),
            {"segmentation": "s", "skeleton": "k"},
            "asks for adapted_rand, but there are no dense labels",
        ),
        (("nerI",), {}, "evaluate.metrics is 'nerI'; wanted one of auto, nerl, voi"),
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
