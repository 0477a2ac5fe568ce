"""Scores of checkpoints are kept by step, and refused where they were made otherwise."""

import json

import numpy as np
import pytest

from nisbjax.artifacts import ValidationDir
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.infer import compute_dtype
from nisbjax.modes import checkpoint_scores
from nisbjax.modes.volumes import Split


@pytest.fixture
def opened(tmp_path, monkeypatch):
    np.save(tmp_path / "image.npy", np.arange(8).reshape(2, 2, 2))
    (tmp_path / "skeleton.pkl").write_bytes(b"skeleton")
    split = Split(str(tmp_path / "image.npy"), "", str(tmp_path / "skeleton.pkl"))
    monkeypatch.setattr(checkpoint_scores, "split_of", lambda config, name: split)
    place = ValidationDir(tmp_path / "validate")
    place.path.mkdir()
    files = []

    def open_(config):
        scores = checkpoint_scores.CheckpointScores(config, place, tmp_path / "logs")
        files.append(scores)
        return scores

    open_.place = place
    yield open_
    for each in files:
        each.close()


def test_scores_are_known_again_by_step(opened):
    scores = opened(base_config())
    scores.add({"step": 20, "nerl": 0.5})
    scores.add({"step": 5, "nerl": 0.25})
    again = opened(base_config())
    assert again.sorted() == [{"step": 5, "nerl": 0.25}, {"step": 20, "nerl": 0.5}]
    assert again.has(5) and not again.has(6)
    assert opened.place.csv.read_text().split() == ["step,nerl", "5,0.25", "20,0.5"]


def test_scores_by_other_keys_are_refused(opened):
    opened(base_config()).add({"step": 5, "nerl": 0.25})
    config = base_config()
    config.decode.threshold = 0.125
    with pytest.raises(InputError, match="decode.threshold"):
        opened(config)


def test_scores_by_another_type_are_refused(opened, monkeypatch):
    """Of a GPU, where `predict.precision` is `auto`."""
    opened(base_config()).add({"step": 5, "nerl": 0.25})
    monkeypatch.setattr(compute_dtype, "_on_gpu", lambda: True)
    with pytest.raises(InputError, match="precision 'fp32', now it is 'fp16'"):
        opened(base_config())


def boxed(box):
    config = base_config()
    config.data.val.box = box
    return config


def test_scores_of_another_region_are_refused(opened):
    opened(boxed("0:8,0:9,0:8")).add({"step": 5, "nerl": 0.25})
    with pytest.raises(
        InputError, match="region '0:8,0:9,0:8', now it is '0:4,0:9,0:8'"
    ):
        opened(boxed("0:4,0:9,0:8"))
    with pytest.raises(InputError, match="region '0:8,0:9,0:8', now it is ''"):
        opened(base_config())
    same = base_config()
    same.predict.roi = "0:8,0:9,0:8"
    assert opened(same).has(5)


def test_scores_of_before_regions_go_on_with_a_warning(opened, caplog):
    """Their files have `predict.roi` as it was set, whatever the volume's box."""
    opened(base_config()).add({"step": 5, "nerl": 0.25})
    content = json.loads(opened.place.json.read_text())
    del content["made_from"]["region"]
    for roi, warned in (("", True), ("0:8,0:9,0:8", False)):
        content["made_from"]["predict.roi"] = roi
        opened.place.json.write_text(json.dumps(content))
        caplog.clear()
        assert opened(boxed("0:8,0:9,0:8")).has(5)
        assert ("taken as 0:8,0:9,0:8; if" in caplog.text) == warned
    with pytest.raises(
        InputError, match="region '0:8,0:9,0:8', now it is '0:4,0:9,0:8'"
    ):
        opened(boxed("0:4,0:9,0:8"))
