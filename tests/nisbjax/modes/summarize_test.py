"""Mean and spread of several trainings, by hand; and which trainings belong together."""

import json
import math
import os
import pathlib

import pytest

from nisbjax import launch
from nisbjax.config import base_config, flatten
from nisbjax.errors import InputError
from nisbjax.modes import summarize as summary

SCORE = {"nerl": 0.1, "voi_sum": 5.0, "voi_split": 3.0, "voi_merge": 2.0}
SCORE |= {"coverage": 0.2, "n_non0_mergers": 4, "n_splits": 7, "nerl_em_erl_50": 0.3}
TUNED = "tuned on val/seed5/skeleton.pkl"


@pytest.fixture
def trained(tmp_path):
    """Makes runs as training and testing leave them."""

    def trained_(
        folder, seed, nerl, /, *, step=20, origin=TUNED, threshold=0.7, **keys
    ):
        folder = tmp_path / folder
        config = flatten(base_config()) | {"seed": seed, **keys}
        tested = flatten(base_config()) | {**keys, "decode.threshold": threshold}
        place = folder / f"test_step={step:08d}" / "seed6"
        place.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        facts = {
            "volume": "seed6",
            "threshold": threshold,
            "threshold_origin": origin,
            "skeleton_sha256": "ab12",
            "skeletons": {**SCORE, "nerl": nerl},
            "config": tested,  # of the testing command, whose seed says nothing
        }
        (place / f"eval_decoded_{threshold:g}.json").write_text(json.dumps(facts))
        return str(folder)

    return trained_


def test_three_runs_by_hand(trained, tmp_path, capsys):
    runs = [trained(f"r{s}", s, v) for s, v in ((1, 0.10), (2, 0.13), (3, 0.16))]
    result = summary.run(runs)
    found = result["metrics"]["nerl"]
    assert result["n"] == 3 and found["values"] == [0.10, 0.13, 0.16]
    assert found["mean"] == pytest.approx(0.13)
    # Deviations -.03 0 .03: sd = sqrt(.0018 / 2) = .03. t(.975, 2) = 4.302653.
    assert found["sd"] == pytest.approx(0.03)
    half = 4.302653 * 0.03 / math.sqrt(3)
    assert found["half_width"] == pytest.approx(half, rel=1e-6)
    assert found["interval"] == pytest.approx([0.13 - half, 0.13 + half])
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "summary.txt").read_text()
    lines = printed.splitlines()
    assert lines[0] == ("nisb_liconn_banis_v3_erosion2 on seed6: n = 3 (seed 1, 2, 3)")
    row = next(line for line in lines if line.startswith("NERL [%]"))
    assert row.split() == [
        "NERL",
        "[%]",
        "13.00",
        "3.00",
        "5.55",
        "to",
        "20.45",
        "(+-",
        "7.45)",
    ]
    assert "The leaderboard asks for five trainings; here n = 3." in lines
    assert not any("chosen on val" in line for line in lines)
    assert json.loads((tmp_path / "summary.json").read_text()) == result
    assert [run["seed"] for run in result["runs"]] == [1, 2, 3]


def test_a_run_without_a_threshold_is_told_by_its_parameters(trained, capsys):
    folder = pathlib.Path(trained("run", 1, 0.5))
    (path,) = folder.glob("test_step=*/seed6/eval_*.json")
    facts = json.loads(path.read_text())
    facts |= {"threshold": None, "parameters": {"attract": 0.25, "repel": 1.0}}
    path.write_text(json.dumps(facts))
    result = summary.run([str(folder)])
    assert result["runs"][0]["parameters"] == {"attract": 0.25, "repel": 1.0}
    assert "NERL 50.00 % at attract 0.25, repel 1 (tuned on" in capsys.readouterr().out
    path.write_text(json.dumps(facts | {"parameters": {"attract": "much"}}))
    with pytest.raises(InputError, match="parameters.attract is 'much'; wanted a fin"):
        summary.run([str(folder)])


def test_five_equal_values_have_no_width(trained, tmp_path):
    runs = [trained(f"r{seed}", seed, 0.2) for seed in range(5)]
    result = summary.run(runs, str(tmp_path / "elsewhere"))
    assert result["metrics"]["nerl"]["interval"] == pytest.approx([0.2, 0.2])
    text = (tmp_path / "elsewhere" / "summary.txt").read_text()
    assert "asks for five" not in text


def test_one_run_says_so(trained, capsys):
    folder = trained("alone", 42, 0.129, origin="default")
    result = summary.run([folder])
    found = result["metrics"]["nerl"]
    assert found["mean"] == 0.129 and found["sd"] is found["interval"] is None
    printed = capsys.readouterr().out
    assert "n = 1 (seed 42)" in printed.splitlines()[0]
    assert "12.90     n = 1" in printed
    assert "thresholds chosen on val: --mode=tune-test" in printed


def test_the_newest_test_with_the_tuned_threshold_is_taken(trained):
    folder = trained("run", 1, 0.5, step=20)
    trained("run", 1, 0.6, step=30, threshold=0.75, origin="default")
    trained("run", 1, 0.7, step=30, threshold=0.64)
    result = summary.run([folder])
    assert result["metrics"]["nerl"]["mean"] == 0.7
    assert result["runs"][0]["step"] == 30
    # Or the one that is named.
    named = f"{folder}/test_step=00000020/seed6/eval_decoded_0.7.json"
    assert summary.run([named])["metrics"]["nerl"]["mean"] == 0.5
    trained("run", 1, 0.8, step=30, threshold=0.66)
    with pytest.raises(
        InputError,
        match=r"run has 2 tests of its newest checkpoint \(test_step=00000030/seed6/eval_d"
        r".*0.64.json, .*0.66.json\); name one of these files instead",
    ):
        summary.run([folder])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"optimizer.lr": 0.5},
            "different settings: optimizer.lr is 0.001 and 0.5; summ",
        ),
        (
            {"name": "nisb_base"},
            "name is 'nisb_liconn_banis_v3_erosion2' and 'nisb_base'",
        ),
        ({"predict.weights": "raw"}, "predict.weights is 'ema' and 'raw'"),
        ({"decode.method": "grow"}, "decode.method is 'affinity_cc' and 'grow'"),
        ({"step": 30}, "checkpoint step is 20 and 30"),
        ({"origin": "default"}, "threshold is 'tuned' and 'default'"),
        (
            {"seed": 1},
            "r1 and .*r2 both have seed 1; wanted trainings that differ in the",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(trained, tmp_path, other, message):
    first = trained("r1", 1, 0.1)
    keys = {"seed": 2, **other}
    second = trained("r2", keys.pop("seed"), 0.2, **keys)
    with pytest.raises(InputError, match=message):
        summary.run([first, second])
    assert not (tmp_path / "summary.txt").exists()


def test_resources_and_thresholds_may_differ(trained):
    first = trained("r1", 1, 0.1)
    keys = {"train.loader_threads": 9, "data.root": "/other"}
    second = trained("r2", 2, 0.2, threshold=0.66, **keys)
    assert summary.run([first, second])["n"] == 2


def test_runs_that_are_not_there(trained, tmp_path):
    folder = trained("run", 1, 0.1)
    with pytest.raises(InputError, match="summarize names no run; wanted RUN RUN"):
        summary.run([])
    with pytest.raises(
        InputError, match="nowhere has no test_step=.*; run --mode=test"
    ):
        summary.run([folder, str(tmp_path / "nowhere")])
    with pytest.raises(InputError, match="there is no file .*x.json; wanted a run"):
        summary.run([str(tmp_path / "x.json")])
    (path,) = (tmp_path / "run").rglob("eval_*.json")
    stray = tmp_path / "test_step=00000020" / path.name
    stray.parent.mkdir()
    stray.write_text(path.read_text())
    with pytest.raises(InputError, match="lies in no run's folder"):
        summary.run([str(stray)])
    loose = tmp_path / "run" / path.name
    loose.write_text(path.read_text())
    with pytest.raises(InputError, match="does not lie below a test_step=N"):
        summary.run([str(loose)])
    facts = json.loads(path.read_text())
    del facts["skeletons"]
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="has no scores; test with a skeleton or lab"):
        summary.run([folder])


def test_runs_that_were_scored_by_labels_alone(trained, tmp_path, capsys):
    runs = [trained(f"r{seed}", seed, 0.1) for seed in (1, 2)]
    for folder, error in zip(runs, (0.1, 0.2), strict=True):
        (path,) = pathlib.Path(folder).rglob("eval_*.json")
        facts = json.loads(path.read_text())
        del facts["skeletons"], facts["skeleton_sha256"]
        facts |= {"label_fingerprint": "cd", "dense": {"adapted_rand_error": error}}
        path.write_text(json.dumps(facts))
    found = summary.run(runs)["metrics"]
    assert list(found) == ["adapted_rand_error"]
    assert found["adapted_rand_error"]["mean"] == pytest.approx(0.15)
    printed = capsys.readouterr().out
    assert "seed 1: adapted Rand error 0.1000 at threshold 0.7" in printed
    assert "leaderboard" not in printed
    with pytest.raises(InputError, match="test labels is 'cd' and None"):
        summary.run([runs[0], trained("r3", 3, 0.1)])


def test_the_mode_takes_paths_and_no_config(trained, capsys):
    folder = trained("run", 1, 0.1)
    result = launch.run_paths("summarize", [folder])
    assert result["n"] == 1 and "n = 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("eval", {"skeletons": 5}, "skeletons is 5; wanted the keys nerl"),
        (
            "eval",
            {"skeletons": {"nerl": "nan"}},
            "skeletons.nerl is 'nan'; wanted a fin",
        ),
        (
            "eval",
            {"threshold": []},
            r"threshold is \[\]; wanted a finite number or text",
        ),
        ("eval", {"threshold_origin": None}, "threshold_origin is null; wanted text"),
        ("eval", {"config": []}, r"config is \[\]; wanted keys with values"),
        ("config", {"seed": "1"}, "seed is '1'; wanted a whole number"),
        ("config", {"name": 1}, "name is 1; wanted text"),
        ("config", None, "config.json is null; wanted the keys seed, name"),
        ("eval", 5, "is 5; wanted the keys"),
    ],
)
def test_files_with_other_types_in_them_are_named(
    trained, tmp_path, name, change, said
):
    folder = pathlib.Path(trained("r1", 1, 0.1))
    (path,) = folder.rglob(f"{name}*.json")
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | change if isinstance(change, dict) else change))
    with pytest.raises(InputError, match=said):
        summary.run([str(folder)])
    assert not list(tmp_path.glob("summary.*"))


def test_a_pipe_is_not_waited_for(trained, tmp_path):
    trained("r1", 1, 0.1)
    os.mkfifo(tmp_path / "eval.json")
    with pytest.raises(InputError, match="eval.json is a device, pipe or socket"):
        summary.run([str(tmp_path / "eval.json")])


@pytest.mark.parametrize("threshold", [None, "0.5"])
def test_a_threshold_that_is_no_number(trained, threshold):
    folder = pathlib.Path(trained("r1", 1, 0.1))
    (path,) = folder.rglob("eval*.json")
    found = json.loads(path.read_text()) | {"threshold": threshold}
    path.write_text(json.dumps(found))
    summary.run([str(folder)])
    assert f"at threshold {threshold} (" in (folder / "summary.txt").read_text()
