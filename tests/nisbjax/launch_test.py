"""What the command line refuses: one line each, exit status 2, nothing written."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nisbjax import launch
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.volume import create_zarr

ROOT = pathlib.Path(__file__).parents[2]


def command(*arguments, cwd):
    """stderr's lines of ours and the exit status of one call of the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "nisbjax.launch", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
    )
    lines = [x for x in done.stderr.splitlines() if x.startswith("nisbjax: ")]
    assert "Traceback" not in done.stderr
    return lines, done.returncode


DEMO = f"--config={ROOT / 'configs' / 'demo.py'}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([DEMO, "--config.decode.thresold=0.7"], 'Did you mean "threshold"'),
        ([DEMO, "--config.train.steps=many"], "--config.train.steps=many: invalid"),
        (["--config=configs/nope.py"], "no config file at configs/nope.py"),
        ([DEMO, "--config.data.root=/no/such"], "no volume matches /no/such/train"),
    ],
    ids=["misspelt key", "wrong type", "no config", "no data"],
)
def test_bad_input_ends_with_one_line_and_status_2(tmp_path, arguments, text):
    lines, status = command(*arguments, cwd=tmp_path)
    assert status == 2
    assert len(lines) == 1
    assert text in lines[0]
    assert not list(tmp_path.iterdir())


def test_help_lists_the_modes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nisbjax.launch", "--help"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    for mode in launch.MODES:
        assert f"\n  {mode}" in done.stdout


def test_unknown_mode():
    with pytest.raises(
        InputError, match="--mode is 'tset'; wanted one of synth, train"
    ):
        launch.run_mode("tset", base_config())


def test_a_mode_without_config():
    with pytest.raises(InputError, match="--config is missing"):
        launch.run_mode("train", None)


def test_no_run_to_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no run of .* under outputs; train one"):
        launch.run_mode("test", base_config())


def test_no_checkpoint_in_the_run(tmp_path):
    config = base_config()
    config.data.root = str(tmp_path)
    with pytest.raises(InputError, match="no checkpoint at"):
        launch.run_mode("test", config, workdir=str(tmp_path / "run"))


def write(path, values, axes):
    volume = create_zarr(
        path, shape=values.shape, dtype=values.dtype, chunks=values.shape, axes=axes
    )
    volume.write(..., values)


def test_a_mask_of_another_shape(tmp_path):
    """Affinities of 4 x 4 x 4 voxels, a mask of 4 x 4 x 3."""
    write(tmp_path / "raw.zarr", np.ones((3, 4, 4, 4), np.float16), "cxyz")
    write(tmp_path / "mask.zarr", np.ones((4, 4, 3), np.uint8), "xyz")
    config = base_config()
    config.decode.input = str(tmp_path / "raw.zarr")
    config.decode.affinity_mask = str(tmp_path / "mask.zarr")
    with pytest.raises(InputError, match=r"mask.*\(4, 4, 3\).*\(4, 4, 4\)"):
        launch.run_mode("decode", config)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.zarr", "raw.zarr"]


def test_decoding_a_file_of_another_program(tmp_path):
    """All edges but those out of the volume: one segment, written beside the input."""
    write(tmp_path / "raw.zarr", np.ones((3, 4, 4, 4), np.float16), "cxyz")
    config = base_config()
    config.decode.input = str(tmp_path / "raw.zarr")
    config.decode.affinity_mask = "null"
    path = launch.run_mode("decode", config)
    assert path.parent == tmp_path
    assert path.name == "decoded_x1_ch0-1-2_affinity_cc_0.75.zarr"


def test_an_empty_volume(tmp_path):
    """A zarr array of 0 x 4 x 4 voxels, as a writer that died leaves it."""
    import zarr

    for name, shape in (("img", (0, 4, 4, 1)), ("seg", (0, 4, 4))):
        zarr.create_array(
            tmp_path / "train/seed0/data.zarr" / name,
            shape=shape,
            dtype="uint8",
            chunks=(4, 4, 4, 1)[: len(shape)],
            zarr_format=2,
        )
    config = base_config()
    config.data.root = str(tmp_path)
    with pytest.raises(InputError, match=r"img is empty: its shape is \(0, 4, 4, 1\)"):
        launch.run_mode("train", config, workdir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
