"""The names that other programs call: the list, where they live, and what they load."""

import importlib
import inspect
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

import nisbjax

# Kept from version to version; a name that goes needs a line in the changelog.
STABLE = {
    "MedNeXt": ("models.mednext", "MedNeXt"),
    "read_state_dict": ("models.foreign.torch_import", "read_state_dict"),
    "to_model": ("models.foreign.torch_import", "to_model"),
    "affinity_targets": ("data.affinities", "affinity_targets"),
    "predict_volume": ("infer.predict", "predict_volume"),
    "Grid": ("infer.windows", "Grid"),
    "label_affinities": ("decode.connected_components", "label_affinities"),
    "label_volume": ("decode.streamed.labeling", "label_volume"),
    "nodes_by_threshold": ("decode.thresholds.sweep", "nodes_by_threshold"),
    "load_skeletons": ("skeletons", "load"),
    "score": ("evaluate.nerl", "score"),
    "open_volume": ("store.volume", "open_volume"),
    "open_image": ("store.volume", "open_image"),
    "open_labels": ("store.volume", "open_labels"),
    "open_affinities": ("store.volume", "open_affinities"),
    "create_zarr": ("store.volume", "create_zarr"),
    "InputError": ("errors", "InputError"),
}
# The first arguments, which programs give by position.
FIRST = {
    "predict_volume": ["apply", "params", "image", "output", "grid"],
    "label_affinities": ["affinities", "threshold"],
    "label_volume": ["affinities", "output", "threshold"],
    "nodes_by_threshold": ["affinities", "positions", "thresholds"],
    "score": ["skeletons", "node_segments"],
    "load_skeletons": ["path"],
    "affinity_targets": ["labels", "offsets"],
}
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "functions.md"


def test_the_list_is_this_one():
    assert sorted(nisbjax.__all__) == sorted(STABLE)
    assert set(STABLE) <= set(dir(nisbjax))


@pytest.mark.parametrize("name", STABLE)
def test_a_name_is_what_stands_in_its_room(name):
    module, own = STABLE[name]
    home = importlib.import_module(f"nisbjax.{module}")
    assert getattr(nisbjax, name) is getattr(home, own)


@pytest.mark.parametrize("name", FIRST)
def test_first_arguments(name):
    parameters = inspect.signature(getattr(nisbjax, name)).parameters
    assert list(parameters)[: len(FIRST[name])] == FIRST[name]


def test_the_page_tells_of_each():
    told = re.findall(r"^### `(\w+)`", PAGE.read_text(), re.MULTILINE)
    assert sorted(told) == sorted(STABLE)


def test_the_pages_program_prints_what_it_says(tmp_path, monkeypatch, capsys):
    program = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    pathlib.Path("program.py").write_text(program)
    runpy.run_path("program.py")
    said = re.findall(r"^print\(.*# (.*)$", program, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == said
    assert len(said) == 3


def test_what_is_not_there():
    with pytest.raises(AttributeError, match="'nisbjax' has no attribute 'label'"):
        _ = nisbjax.label  # pyright: ignore


def test_nothing_is_loaded_before_it_is_asked_for():
    program = (
        "import sys, nisbjax\n"
        "heavy = ('jax', 'numba', 'tensorstore', 'networkx')\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "nisbjax.label_volume, nisbjax.score, nisbjax.open_image\n"
        "print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "False"]
