"""What the command line refuses: one line each, exit status 2, nothing written."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from nisbjax import launch
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.modes import command_line
from nisbjax.store.volume import create_zarr, open_labels

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
        ([DEMO, "--config.decode.thresold=0.7"], "did you mean decode.threshold,"),
        ([DEMO, "--config.data.root=/no/such"], "no volume matches /no/such/train"),
    ],
    ids=["misspelt key", "no data"],
)
def test_bad_input_ends_with_one_line_and_status_2(tmp_path, arguments, text):
    lines, status = command(*arguments, cwd=tmp_path)
    assert status == 2
    assert len(lines) == 1
    assert text in lines[0]
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written(tmp_path):
    """A report below a file: the system's word, in one line."""
    np.save(tmp_path / "raw.npy", np.ones((3, 4, 4, 4), np.float16))
    named = f"--config.qc.input={tmp_path}/raw.npy"
    report = f"--config.qc.report={tmp_path}/raw.npy/report.md"
    lines, status = command(DEMO, "--mode=qc", named, report, cwd=tmp_path)
    assert status == 2
    assert len(lines) == 1
    assert "raw.npy: " in lines[0] and "name another path" in lines[0]


@pytest.mark.parametrize("said", ["--garbage", "no/such/file", "-x --xla_dump_to=a"])
def test_words_that_are_no_flags_of_xla(monkeypatch, said):
    monkeypatch.setenv("XLA_FLAGS", said)
    with pytest.raises(InputError, match="XLA_FLAGS "):
        launch.run_mode("export", base_config())


@pytest.mark.parametrize("platform", ["cuda", "no_such_platform"])
def test_a_platform_that_is_not_there(tmp_path, platform):
    program = "import jax; from nisbjax import launch; launch._run = lambda _: jax.devices(); launch.main(['x'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": platform},
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert f"no device of JAX_PLATFORMS='{platform}'" in done.stderr


def test_output_that_nobody_reads_any_more(tmp_path):
    program = "from nisbjax import launch; launch._run = lambda _: print('x' * 10**6); launch.main(['x'])"
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    child.stdout.close()
    said = child.stderr.read()
    child.stderr.close()
    assert child.wait() == 2
    assert said == "nisbjax: whoever read the output has closed it; start again\n"


def test_help_lists_the_modes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nisbjax", "--help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    for mode in (*launch.MODES, *launch.PATH_MODES, "convert"):
        assert f"\n  {mode}" in done.stdout


def test_unknown_mode():
    with pytest.raises(
        InputError, match="--mode is 'tset'; wanted one of synth, check, train"
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


def bad_decodes(folder):
    """Arguments of decodes that must be refused, and what their line says."""
    write(folder / "raw.zarr", np.ones((3, 4, 4, 4), np.float16), "cxyz")
    write(folder / "two.zarr", np.ones((2, 4, 4, 4), np.float16), "cxyz")
    write(folder / "mask.zarr", np.ones((4, 4, 3), np.uint8), "xyz")
    write(folder / "begun.zarr", np.ones((3, 4, 4, 4), np.float16), "cxyz")
    begun = folder / "begun.zarr" / ".manifest.jsonl"
    begun.write_text('{"fingerprint": {}}\n{"key": "0:8"}\n')
    raw = f"input={folder}/raw.zarr"
    plain = "affinity_mask=", "method=affinity_cc"
    wanted = {
        "two.zarr has 2 channel(s); wanted at least 3": [f"input={folder}/two.zarr"],
        "decode.threshold is 1.5; wanted a number in [0, 1]": [raw, "threshold=1.5"],
        "decode.threshold is nan; wanted": [raw, "threshold=nan"],
        "mask (4, 4, 3) does not match affinities (4, 4, 4); rerun --mode=mask": [
            raw,
            f"affinity_mask={folder}/mask.zarr",
        ],
        "begun.zarr is unfinished (1 parts are written)": [
            f"input={folder}/begun.zarr"
        ],
        "decode.method=chain got affinities of 3 channels; wanted long-range": [
            raw,
            "method=chain",
        ],
        "mutex decoding got 3 channels": [raw, "method=mutex", "low_threshold=0.2"],
        "decode.low_threshold is 0.9": [raw, "method=grow", "low_threshold=0.9"],
        "cluster.kind=dask needs --config.cluster.address": [raw],
    }
    return {
        text: [f"--config.decode.{a}" for a in (*plain, *keys)]
        for text, keys in wanted.items()
    }


def test_decodes_that_are_refused_write_nothing(tmp_path, monkeypatch):
    cases = bad_decodes(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for text, keys in cases.items():
        more = ["--config.cluster.kind=dask"] if "cluster" in text else []
        monkeypatch.setattr(command_line, "FLAGS", flags.FlagValues())
        command_line.parse_flags(["nisbjax", DEMO, *keys, *more])
        with pytest.raises(InputError) as refused:
            launch.run_mode("decode", command_line.FLAGS.config)
        assert text in str(refused.value)
    lines, status = command(
        DEMO, "--mode=decode", *next(iter(cases.values())), cwd=tmp_path
    )
    assert status == 2 and len(lines) == 1 and next(iter(cases)) in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("method", ["grow", "mutex"])
def test_decoding_by_another_method(tmp_path, method):
    """All edges along x, y, z and 10 voxels on: one segment, by the command line."""
    write(tmp_path / "raw.zarr", np.ones((6, 11, 11, 11), np.float16), "cxyz")
    path = tmp_path / "labels.zarr"
    lines, status = command(
        DEMO,
        "--mode=decode",
        f"--config.decode.method={method}",
        f"--config.decode.input={tmp_path}/raw.zarr",
        "--config.decode.affinity_mask=",
        f"--config.decode.output={path}",
        "--config.decode.low_threshold=0.25",
        cwd=tmp_path,
    )
    assert (lines, status) == ([], 0)
    volume = open_labels(path)
    assert (volume.read() == 1).all()
    assert volume.attributes["method"] == method
    assert volume.attributes["segments"] == 1


def test_decoding_a_file_of_another_program(tmp_path):
    """All edges but those out of the volume: one segment, written beside the input."""
    write(tmp_path / "raw.zarr", np.ones((3, 4, 4, 4), np.float16), "cxyz")
    config = base_config()
    config.decode.input = str(tmp_path / "raw.zarr")
    config.decode.affinity_mask = "null"
    path = launch.run_mode("decode", config)
    assert path.parent == tmp_path
    assert path.name == "decoded_raw_x1_ch0-1-2_affinity_cc_0.75_nomask.zarr"


def test_what_is_done_stays_so_where_the_next_step_cannot_be_told(
    tmp_path, monkeypatch, caplog
):
    """The server of a skeleton's address goes away while a mode ends."""
    from nisbjax.modes import ending
    from nisbjax.modes.next_command import Start

    def gone(*_):
        raise InputError("there is no answer")

    monkeypatch.setattr(ending, "text", gone)
    write(tmp_path / "raw.zarr", np.ones((3, 4, 4, 4), np.float16), "cxyz")
    config = base_config()
    config.decode.input = str(tmp_path / "raw.zarr")
    config.decode.affinity_mask = ""
    path = launch.run_mode("decode", config, start=Start(["nisbjax"], []))
    assert open_labels(path).attributes["segments"] == 1
    assert (
        "decode is done; what is next cannot be told: there is no answer" in caplog.text
    )


def test_a_dataset_inside_a_file(tmp_path):
    """The report lies beside the file, not in it."""
    import h5py

    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["first"] = np.ones((3, 4, 4, 4), np.float16)
        file["second"] = np.ones((3, 4, 4, 4), np.float16)
    config = base_config()
    config.qc.input = f"{tmp_path}/raw.h5/second"
    report = launch.run_mode("qc", config)
    assert report == tmp_path / "raw_h5_second_check_aff_report.md"


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


def test_a_mode_of_paths_and_a_path_that_no_mode_takes(tmp_path):
    lines, status = command("--mode=summarize", "nowhere", cwd=tmp_path)
    assert status == 2 and "nowhere has no test_step=*/*/eval_*.json" in lines[0]
    lines, status = command(DEMO, "--mode=test", "nowhere", cwd=tmp_path)
    assert (
        status == 2 and "'nowhere' is no flag; --mode=test takes no paths" in lines[0]
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "form", [["--config.decode.threshold", "0.7"], ["--config.decode.threshold=0.75"]]
)
def test_the_flag_parser_knows_what_was_given(tmp_path, form):
    """With a blank or =, and where the value is the default's."""
    program = (
        "import sys; from absl import app; from nisbjax import launch\n"
        "launch.run_mode = lambda *a, given, **k: print('given', given)\n"
        "launch.define_flags()\n"
        "app.run(launch.main, argv=sys.argv, flags_parser=launch.parse_flags)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, DEMO, "--mode=test", *form],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "given ('decode.threshold',)" in done.stdout
