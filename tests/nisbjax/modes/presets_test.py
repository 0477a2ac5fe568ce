"""Presets by name, files, and the configuration that a run remembers."""

import json
import logging
import re

import pytest
from setuptools import find_namespace_packages

from nisbjax.config import base_config, flatten, write
from nisbjax.errors import InputError
from nisbjax.keys import ranges
from nisbjax.models.recomputation import recomputation
from nisbjax.modes import presets


def test_a_preset_by_its_name_and_by_its_file():
    named = presets.load("banis_small")
    assert named.is_locked and named.model.size == "S"
    path = presets.folder() / "banis_small.py"
    assert flatten(presets.load(str(path))) == flatten(named)


def test_an_installed_package_has_the_presets():
    """setuptools takes the folder that `nisbjax/configs` links to for a package."""
    package = presets.folder().parent
    assert (package / "configs").is_symlink() and package.name == "nisbjax"
    assert "nisbjax.configs" in find_namespace_packages(str(package.parent))


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        (["x", "--config=demo", "--mode=test"], ("demo", ["x", "--mode=test"])),
        (["x", "--config", "demo", "a"], ("demo", ["x", "a"])),
        (["x", "-config=a", "--config=b"], ("b", ["x"])),
        (["x", "--config.seed=3"], ("", ["x", "--config.seed=3"])),
        (["x", "--workdir=none"], ("", ["x", "--workdir=none"])),
        (["x", "--", "--config=demo"], ("", ["x", "--", "--config=demo"])),
    ],
)
def test_what_the_command_line_names(arguments, taken):
    assert presets.take(arguments) == taken


@pytest.mark.parametrize("joined", [True, False])
def test_a_run_brings_its_configuration(tmp_path, joined):
    write(base_config(), tmp_path / "config.json")
    workdir = [f"--workdir={tmp_path}"] if joined else ["--workdir", str(tmp_path)]
    assert presets.take(["x", *workdir]) == (
        str(tmp_path / "config.json"),
        ["x", *workdir],
    )
    assert presets.take(["x", "--config=demo", *workdir])[0] == "demo"


def test_a_run_remembers_every_value(tmp_path):
    config = base_config()
    config.data.root, config.data.patch = "somewhere", (32, 32, 16)
    config.tune.space = (("threshold", 0.3, 0.5),)
    config.schedule.steps = 70
    write(config, tmp_path / "config.json")
    found = presets.load(str(tmp_path / "config.json"))
    assert found.is_locked and flatten(found) == flatten(config)
    assert found.tune.space == (("threshold", 0.3, 0.5),)
    # What followed goes on to follow; what was set of its own stays.
    found.data.patch, found.train.steps = (8, 8, 8), 9
    assert found.predict.window == (8, 8, 8) and found.schedule.steps == 70


def test_a_run_of_another_version(tmp_path, caplog):
    flat = flatten(base_config()) | {"decode.speed": 3}
    del flat["decode.joins"]
    (tmp_path / "config.json").write_text(json.dumps(flat))
    with caplog.at_level(logging.WARNING):
        found = presets.load(str(tmp_path / "config.json"))
    assert flatten(found) == flatten(base_config())
    assert "decode.speed are no keys of this version" in caplog.text
    assert "decode.joins are not in it and keep their defaults" in caplog.text


def test_a_section_that_a_run_has_not_is_one_word(tmp_path, caplog):
    found = flatten(base_config())
    kept = {
        k: v for k, v in found.items() if not k.startswith("synth.") and k != "seed"
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(kept))
    assert flatten(presets.of_run(path)) == found
    (line,) = caplog.messages
    assert line == f"{path}: seed, synth.* are not in it and keep their defaults"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "config.json"),
        ("5", "config.json is 5; wanted keys with values"),
        ('{"seed": -1}', "config.json: seed is -1; wanted a whole number, 0 or more"),
        ('{"data.kind": 5}', "config.json: data.kind is 5; wanted one of nisb, files"),
        ('{"ema.decay": "x"}', "config.json: ema.decay is 'x'; wanted a number in"),
        ('{"seed": 0.5}', "0 or more; name another with --config"),
    ],
)
def test_a_run_whose_file_is_damaged(tmp_path, content, said):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError) as caught:
        presets.load(str(tmp_path / "config.json"))
    assert said in str(caught.value)


@pytest.mark.parametrize("kept, counted", [(True, "block"), (False, "none")])
def test_a_run_from_before_recomputation_was_a_word(tmp_path, kept, counted):
    flat = flatten(base_config()) | {"model.remat": kept}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    config = presets.load(str(tmp_path / "config.json"))
    ranges.check(config)
    assert recomputation(config.model.remat) == counted


def test_a_whole_number_where_a_fraction_is_wanted(tmp_path):
    (tmp_path / "config.json").write_text('{"decode.memory_gb": 3}')
    assert presets.load(str(tmp_path / "config.json")).decode.memory_gb == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("c.data.patch = 8", "patch is 8, of type int; wanted a tuple, as (8, 8, 8)"),
        ("c.data.root = 3", "root is 3, of type int; wanted a str"),
        ("c.train.stepz = 3", "stepz is no key"),
        ("raise ValueError('no')", "ValueError: no"),
        ("c.train.steps = = 3", "invalid syntax; wanted a Python file that defines"),
    ],
)
def test_a_file_that_cannot_be_run_is_named_with_its_line(tmp_path, line, said):
    path = tmp_path / "my.py"
    head = "from nisbjax.config import base_config\ndef get_config():\n    c = base_config()"
    path.write_text(f"{head}\n    {line}\n    return c\n")
    with pytest.raises(InputError, match=re.escape(f"{path}, line 4: {said}")):
        presets.load(str(path))


def test_a_file_without_a_configuration_says_what_is_wanted(tmp_path):
    path = tmp_path / "my.py"
    path.write_text("")
    wanted = r"my.py: it has no get_config\(\); wanted a function of that name"
    with pytest.raises(InputError, match=wanted):
        presets.load(str(path))
