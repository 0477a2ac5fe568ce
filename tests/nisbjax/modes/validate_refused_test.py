"""Checkpoints, tables and flags that a validation refuses, or leaves out aloud."""

import shutil

import numpy as np
import pytest
from validated_runs import run, save

from nisbjax import launch
from nisbjax.artifacts import Run
from nisbjax.errors import InputError
from nisbjax.store import lock
from nisbjax.store.volume import open_volume

pytestmark = pytest.mark.usefixtures("linear_network")


@pytest.mark.usefixtures("quick")
def test_a_damaged_checkpoint_is_left_out_and_refused_by_name(settings, folder, caplog):
    save(folder, settings, {10: 20, 20: 20})
    path = folder / "checkpoints/20/ema/_METADATA"
    path.write_bytes(path.read_bytes() + b" ")
    assert [row["step"] for row in run(settings, folder)] == [10]
    assert "checkpoints/20 is damaged (ema/_METADATA changed" in caplog.text
    # To watch is not to wait for it for ever.
    assert [row["step"] for row in run(settings, folder, watch=True)] == [10]
    with pytest.raises(InputError, match="checkpoints/20 is damaged"):
        run(settings, folder, str(folder / "checkpoints" / "20"))


@pytest.mark.usefixtures("quick")
def test_an_unsealed_checkpoint_is_left_out_aloud(settings, folder, caplog):
    caplog.set_level("INFO", logger="absl")
    save(folder, settings, {10: 20, 20: 20})
    (folder / "checkpoints/20/SHA256SUMS").unlink()
    assert [row["step"] for row in run(settings, folder)] == [10]
    assert "checkpoints/20 is left out until training seals it" in caplog.text
    with pytest.raises(InputError, match="checkpoints/20 was not sealed .no SHA256SUM"):
        run(settings, folder, str(folder / "checkpoints/20"))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("key", ["qc.input", "mask.report"])
def test_what_it_makes_itself_is_not_taken(settings, folder, key):
    settings.update_from_flattened_dict({key: "/x"})
    save(folder, settings, {10: 20})
    with pytest.raises(InputError, match=f"{key} is /x, and --mode=validate makes its"):
        run(settings, folder)
    assert not (folder / "validate" / "nerl.json").exists()


@pytest.mark.usefixtures("quick")
def test_two_do_not_validate_one_run(settings, folder):
    save(folder, settings, {10: 20})
    with (
        lock.held(Run(folder).validation.lock),
        pytest.raises(InputError, match="validate is being written by process .* on"),
    ):
        run(settings, folder, watch=True)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("5", "nerl.json is 5; wanted the keys made_from, checkpoints; move .*valid"),
        ('{"made_from": {}, "checkpoints": [{"step": "1"}]}', r"\[0\].step is '1'; wa"),
        ('{"made_from": 3, "checkpoints": []}', "made_from is 3; wanted keys with va"),
        ('{"made_from": {}, "chec', "nerl.json is not valid JSON"),
    ],
)
def test_a_table_of_something_else_is_refused(settings, folder, content, message):
    save(folder, settings, {10: 20})
    place = Run(folder).validation
    place.path.mkdir()
    place.json.write_text(content)
    with pytest.raises(InputError, match=message):
        run(settings, folder)
    assert place.json.read_text() == content


@pytest.mark.usefixtures("quick")
def test_scores_by_other_keys_are_not_mixed(settings, folder):
    save(folder, settings, {10: 20})
    run(settings, folder)
    settings.decode.threshold = 0.6
    with pytest.raises(
        InputError,
        match=r"nerl.json was made with decode.threshold 0.75, now it is 0.6; move .*va",
    ):
        run(settings, folder)


@pytest.mark.usefixtures("quick")
def test_scores_of_other_data_are_not_mixed(settings, folder, root, tmp_path):
    """Data may move; what was put in their place is something else."""
    save(folder, settings, {10: 20})
    run(settings, folder)
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    settings.data.root = str(moved)
    run(settings, folder)
    image = open_volume(moved / "val/seed5/data.zarr/img", writable=True)
    image.write((0, 0, 0, 0), np.array(7, np.uint8))
    with pytest.raises(InputError, match=r"nerl.json was made with image '.*; move .*"):
        run(settings, folder)


def test_what_goes_with_what(settings, folder, tmp_path):
    with pytest.raises(InputError, match="--watch follows a whole run; leave --check"):
        run(settings, folder, "somewhere", watch=True)
    with pytest.raises(
        InputError, match="--watch goes with --mode=validate, not train"
    ):
        launch.run_mode("train", settings, str(folder), watch=True)
    with pytest.raises(InputError, match="no checkpoint at"):
        run(settings, folder)
