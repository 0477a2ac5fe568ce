"""What modes end with: their table, paths that are there, the disk, the next command."""

import json

import numpy as np
import pytest

from nisbjax.artifacts import Run
from nisbjax.config import base_config
from nisbjax.modes import ending
from nisbjax.modes.next_command import Start
from nisbjax.modes.volumes import Split
from nisbjax.store.volume import create_zarr
from tests.web_server import serving

START = Start(["python", "-m", "nisbjax"], [])


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


@pytest.fixture
def config(tmp_path):
    c = base_config()
    c.data.root = str(tmp_path)
    c.data.kind = "files"
    for split in ("val", "test"):
        c.data[split].image, c.data[split].label = "em.npy", "labels.npy"
        c.data[split].skeleton = ""
    return c


def said(mode, config, run, result, start=START):
    return ending.text(mode, config, run, result, start).split("\n")


def file(path, size=1000):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_training_shows_its_last_losses_and_the_study_is_next(config, run, tmp_path):
    lines = [
        {"step": step, key: value}
        for step in (10, 20)
        for key, value in (("train/loss_mean", 3.0), ("val/loss", 40.0 / step))
    ]
    file(run.history).write_text("\n".join(map(json.dumps, lines)))
    table = said("train", config, run, None)
    assert [line.split() for line in table[:3]] == [
        ["step", "loss", "validation"],
        ["10", "3.0000", "4.0000"],
        ["20", "3.0000", "2.0000"],
    ]
    assert f"curves  {run.logs}" in table[3]
    next_one = f"python -m nisbjax --mode=test --workdir={run.path}"
    assert table[-1] == f"  next  {next_one}"
    # With something on the validation volume to tune by, that is next.
    np.save(tmp_path / "labels.npy", np.zeros((2, 2, 2), np.uint8))
    again = said("train", config, run, None)
    assert again[-1] == f"  next  {next_one.replace('=test', '=tune')}"


def test_a_study_ends_with_what_it_chose_and_testing_by_it(config, run):
    place = run.tune(20)
    file(place.best_params)
    chosen = {"repel": 0.4, "attract": 0.25, "joins": ("average", "absorb")}
    best = {"decoding_params": chosen, "scores": {"nerl": 0.5}}
    lines = said("tune", config, run, best)
    assert [line.split() for line in lines[:2]] == [
        ["chosen", "attract", "joins", "repel", "NERL"],
        ["0.25", "average+absorb", "0.4", "0.500"],
    ]
    assert f"parameters  {place.best_params}" in lines
    assert lines[-1].endswith("--config.decode.threshold_from=study")


@pytest.mark.parametrize(
    ("origin", "tuned"), [("default", False), ("tuned on a", True)]
)
def test_a_test_ends_with_its_scores_and_tuning_where_nothing_is_tuned(
    config, run, tmp_path, origin, tuned
):
    np.save(tmp_path / "labels.npy", np.zeros((2, 2, 2), np.uint8))
    place = run.test(20, "seed6")
    segmentation = place.path / "decoded_a.zarr"
    scores = file(place.evaluation(segmentation, ".txt"), 2_000_000)
    file(place.slices(segmentation))
    facts = {"segmentation": str(segmentation), "threshold_origin": origin}
    facts |= {"files": {}, "skeletons": {"nerl": 0.5}, "dense": {"voi_sum": 2.0}}
    lines = said("test", config, run, facts)
    assert [line.split() for line in lines[:3]] == [
        ["seed6", "NERL", "VOI"],
        ["skeletons", "0.500", "-"],
        ["labels", "-", "2.00"],
    ]
    words = [line.split()[0] for line in lines[3:] if line.strip()[0].isalpha()]
    assert words == ["slices", "scores", "disk", *["next"] * (not tuned)]
    assert f"scores  {scores}" in lines[4]
    assert lines[5].split()[:4] == ["disk", "2.0", "MB", "in"]
    assert lines[6].split() == ["2.0", "MB", scores.name]
    assert lines[6].index("2.0") == lines[5].index("2.0")
    assert tuned or "--mode=tune-test" in lines[-1]


def test_the_prediction_of_a_file_is_decoded_beside_it(config, run, tmp_path):
    path = tmp_path / "big_raw.zarr"
    create_zarr(
        path, shape=(3, 4, 4, 4), dtype="float16", chunks=(1, 4, 4, 4), axes="cxyz"
    )
    lines = said("predict", config, run, path)
    assert lines[0] == "3 x 4 x 4 x 4 affinities of float16"
    assert lines[-1].endswith(f"--mode=decode --workdir={run.path}")
    given = ["--config.predict.input=big.zarr", "--config.predict.output=big_raw.zarr"]
    config.predict.input, config.predict.output = "big.zarr", "big_raw.zarr"
    lines = said("predict", config, run, path, Start(["nisbjax"], given))
    output = tmp_path / "big_raw_seg.zarr"
    assert lines[-1].split()[-2:] == [
        f"--config.decode.input={path}",
        f"--config.decode.output={output}",
    ]
    assert "--config.predict" not in lines[-1]


def test_a_segmentation_is_scored_next_where_there_is_a_truth(config, run, tmp_path):
    path = tmp_path / "a.zarr"
    facts = {"segments": 1234, "background": 0.25, "largest_segment_voxels": 9}
    array = {"shape": (4, 4, 4), "dtype": "uint16", "chunks": (4, 4, 4)}
    create_zarr(path, **array, axes="xyz", attributes=facts)
    lines = said("decode", config, run, path)
    assert lines[0] == ("1,234 segments, 25.0 % background, the largest of 9 voxels")
    assert len(lines) == 4 and "disk" in lines[2] and "a.zarr" in lines[3]
    np.save(tmp_path / "labels.npy", np.zeros((4, 4, 4), np.uint8))
    assert "--mode=evaluate" in said("decode", config, run, path)[-1]
    config.decode.input = "foreign.zarr"
    assert "next" not in said("decode", config, run, path)[-1]
    config.evaluate.skeleton = "skeleton.pkl"
    last = said("decode", config, run, path)[-1]
    assert last.endswith(f"--config.evaluate.segmentation={path}")


def test_scores_of_a_file_that_was_named_are_found(config, run, tmp_path):
    """In the run's folder under the file's name, after its folder's where that is another."""
    for segmentation, report in (
        (tmp_path / "other" / "x_seg.zarr", "eval_other_x_seg.txt"),
        (run.path / "seg.tif", "eval_seg_tif.txt"),
    ):
        config.evaluate.segmentation = str(segmentation)
        file(run.path / report)
        facts = {"segmentation": str(segmentation), "files": {}}
        facts["dense"] = {"voi_sum": 2.0, "voi_split": 1.0, "voi_merge": 1.0}
        lines = said("evaluate", config, run, facts)
        assert any(f"scores  {run.path / report}" in line for line in lines)


def test_after_a_test_of_a_region_nothing_is_tuned(config, run, tmp_path):
    np.save(tmp_path / "labels.npy", np.zeros((2, 2, 2), np.uint8))
    segmentation = run.path / "test_step=00000001" / "own" / "decoded_a.zarr"
    file(segmentation.with_name("eval_decoded_a.txt"))
    facts = {
        "segmentation": str(segmentation),
        "files": {},
        "threshold_origin": "default",
    }
    facts["dense"] = {"voi_sum": 2.0, "voi_split": 1.0, "voi_merge": 1.0}
    assert "--mode=tune-test" in said("test", config, run, facts)[-1]
    config.predict.roi = "0:1,0:2,0:2"
    assert "next" not in said("test", config, run, facts)[-1]


def test_other_modes_say_for_themselves_what_they_made(config, run):
    assert said("demo", config, run, None) == [""]


def test_a_skeleton_at_an_address_is_a_truth(tmp_path):
    (tmp_path / "skeleton.pkl").write_bytes(b"x")
    with serving(tmp_path) as (server, _):
        assert ending._has_truth(Split("", "", f"{server}/skeleton.pkl"))
        assert not ending._has_truth(Split("", "", f"{server}/no.pkl"))
