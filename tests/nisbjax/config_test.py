"""Keys, their values as text, and which of them determine an artifact."""

import json

import pytest

from nisbjax.config import base_config, flatten, write
from nisbjax.errors import InputError, require_choice
from nisbjax.keys.checks import optional


def test_the_tutorials_values():
    flat = flatten(base_config())
    wanted = {
        "seed": 42,
        "train.steps": 200_000,
        "schedule.steps": 200_000,
        "train.batch_per_device": 2,
        "optimizer.lr": 1e-3,
        "optimizer.weight_decay": 0.01,
        "optimizer.norm_weight_decay": 0.0,
        "ema.decay": 0.999,
        "ema.warmup_steps": 500,
        "data.patch": [128, 128, 128],
        "predict.window": [128, 128, 128],
        "data.erosion": [0, 2, 2],
        "decode.threshold": 0.75,
        "predict.scale": 0.2,
    }
    assert {key: flat[key] for key in wanted} == wanted


def test_a_misspelt_key_and_a_wrong_type_raise():
    c = base_config()
    with pytest.raises(AttributeError):
        c.train.step = 5
    with pytest.raises(TypeError):
        c.train.steps = "many"


def test_a_config_is_written_whole(tmp_path):
    c = base_config()
    write(c, tmp_path / "run" / "config.json")
    text = (tmp_path / "run" / "config.json").read_text()
    assert json.loads(text) == flatten(c)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.json"]


def test_words_for_none_and_words_to_choose():
    assert [optional(w) for w in ("", "null", "None", "none")] == [""] * 4
    assert optional("a.h5") == "a.h5"
    require_choice("mode", "train", ("train", "test"))
    with pytest.raises(InputError, match="mode is 'trian'; wanted one of train, test"):
        require_choice("mode", "trian", ("train", "test"))
