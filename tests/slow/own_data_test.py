"""The first day with one's own data, as docs/own_data.md has it, with slips in between.

A TIFF image and HDF5 labels that lie z y x, one stack divided by boxes, no skeletons, then
skeletons; then affinities of another program, z y x c, and two such files in one folder.
Each step is a process; its exit status, its lines and its scores are read.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
import tifffile

from nisbjax.store.volume import open_image, open_labels, open_volume

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
QUICK = "--xla_backend_optimization_level=0"  # a third of the seconds; the lines are the same
SIZES = {
    "data.train.box": "0:40,0:64,0:64",
    "data.val.box": "40:52,0:64,0:64",
    "data.test.box": "52:64,0:64,0:64",
    "data.patch": "16",
    "model.channels": "4",
    "train.steps": "4",
    "predict.window": "(16, 16, 16)",
}


class Day:
    """A folder, and the commands that are given in it."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def run(self, *arguments: str, status: int = 0) -> str:
        """What `python -m nisbjax` prints; a refusal is one line on standard error."""
        done = subprocess.run(  # noqa: PLW1510 (it may fail)
            [sys.executable, "-m", "nisbjax", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": QUICK},
            capture_output=True,
            text=True,
            timeout=900,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, said[-3000:]
        if status:
            lines = [s for s in done.stderr.splitlines() if s.startswith("nisbjax: ")]
            assert lines == done.stderr.splitlines()[-1:], said
            assert "Traceback" not in said
            return lines[0]
        return said

    def slip(self, *arguments: str) -> str:
        """The line of a refusal; no file appears or changes by it."""
        before = self.files()
        line = self.run(*arguments, status=2)
        assert self.files() == before
        return line

    def files(self) -> dict[str, int]:
        return {
            str(p.relative_to(self.folder)): p.stat().st_mtime_ns
            for p in self.folder.rglob("*")
            if p.is_file() and p.suffix != ".lock" and "__pycache__" not in p.parts
        }

    def scores(self, pattern: str) -> dict:
        (path,) = self.folder.glob(pattern)
        return json.loads(path.read_text())


@pytest.fixture(scope="module")
def day(tmp_path_factory, launched) -> Day:
    """em.tif and labels.h5, both z y x; the page's configuration; skeletons put aside."""
    made = tmp_path_factory.mktemp("made")
    keys = {"synth.shape": "(64, 64, 64)", "synth.volumes": "('test/seed6',)"}
    launched("synth", made, keys)
    (cube,) = made.rglob("test/seed6")
    folder = tmp_path_factory.mktemp("own")
    image = open_image(cube / "data.zarr/img").read()[..., 0]
    labels = open_labels(cube / "data.zarr/seg").read()
    tifffile.imwrite(folder / "em.tif", image.T, photometric="minisblack")
    with h5py.File(folder / "labels.h5", "w") as file:
        file["labels"] = labels.T.astype(np.uint32)
    (folder / "traced.pkl").write_bytes((cube / "skeleton.pkl").read_bytes())
    page = (ROOT / "docs/own_data.md").read_text()
    (source,) = re.findall(r"```python\n(\"\"\"mystack.py.*?)```", page, re.DOTALL)
    (folder / "mystack.py").write_text(source)
    return Day(folder)


OWN = ["--config=mystack.py", "--config.data.root=."]
SMALL = [f"--config.{key}={value}" for key, value in SIZES.items()]
VOXEL = "--config.data.voxel_size_nm=(9.0, 9.0, 12.0)"


def test_a_check_before_training(day):
    checked = [*OWN, VOXEL, "--mode=check", "--workdir=checked"]
    said = day.run(*checked, *SMALL)
    assert said.splitlines() and "ready" in said.splitlines()
    assert (day.folder / "checked/check/check.png").read_bytes()[:4] == b"\x89PNG"
    line = day.run(
        *checked,
        *SMALL,
        "--config.data.val.label=label.h5",
        "--config.data.train.box=0:80,0:64,0:64",
        status=2,
    )
    assert "2 things are wrong" in line
    found = (day.folder / "checked/check/check.txt").read_text()
    assert "label.h5" in found and "wanted a box inside it" in found


@pytest.fixture(scope="module")
def trained(day) -> str:
    return day.run(*OWN, *SMALL, VOXEL, "--workdir=run")


def test_slips_before_anything_is_there(day):
    assert "--config is missing" in day.slip("--workdir=nowhere")
    line = day.slip("--config=mystak.py", "--config.data.root=.")
    assert "mystak.py" in line
    line = day.slip(*OWN, *SMALL, "--config.decode.treshold=.5")
    assert "decode.threshold" in line
    assert "--config.data.root" in day.slip("--config=mystack.py", "--data.root=.")
    line = day.slip(*OWN, *SMALL, "--config.data.train.image=em.tiff")
    assert "no volume matches em.tiff" in line
    line = day.slip(*OWN, *SMALL, "--config.data.train.box=0:80,0:64,0:64")
    assert "wanted a box inside it" in line
    line = day.slip(*OWN, *SMALL, "--config.train.steps=0")
    assert "train.steps is 0" in line
    assert "run-1" in day.slip("--mode=test", "--workdir=run-1")


def test_what_training_reads_is_said(day, trained):
    assert "labels.h5 has no word for its axes: z y x, as in em.tif" in trained
    assert "uint8 40 x 64 x 64, stored as z y x" in trained
    told = [s for s in trained.splitlines() if not s.lstrip().startswith("next ")]
    assert [s for s in told if len(s) > 80] == []
    assert list(day.folder.glob("run/checkpoints/*"))


@pytest.mark.long
def test_the_same_axes_said_by_hand_are_the_same(day, trained):
    """Labels in x y z do not fit what training read: their borders lie elsewhere."""
    said = day.run(
        *OWN,
        *SMALL,
        VOXEL,
        "--workdir=turned",
        "--config.data.train.label=labels.h5#xyz",
        "--config.train.steps=1",
    )
    assert "fit" in said and "axes" in said
    assert "fit" not in "".join(s for s in trained.splitlines() if "axes" in s)


def newest(day: Day) -> dict:
    """What the last test of the run wrote of its scores."""
    found = day.folder.glob("run/test_step=*/*/eval_*.json")
    return json.loads(max(found, key=lambda p: p.stat().st_mtime_ns).read_text())


def test_testing_without_skeletons(day, trained):
    said = day.run("--mode=test", "--workdir=run")
    assert "adapted Rand error" in said
    scores = newest(day)
    assert 0 <= scores["dense"]["adapted_rand_error"] <= 1 and "skeletons" not in scores
    assert 0 <= scores["dense"]["voi_sum"] < 20
    day.run("--mode=test", "--workdir=run")  # all is there
    assert newest(day)["dense"] == scores["dense"]
    line = day.slip("--mode=test", "--workdir=run", "--config.decode.min_size=7.5")
    assert "decode.min_size" in line


SPACE = "--config.tune.space=(('attract',0.0,0.4,2),('repel',0.4,0.8,2))"
STUDIED = "--config.decode.threshold_from=study"


def test_tuning_without_skeletons(day, trained):
    line = day.slip("--mode=test", "--workdir=run", STUDIED)
    assert "run --mode=tune first" in line
    day.run("--mode=tune", "--workdir=run", SPACE)
    (path,) = day.folder.glob("run/tune_step=*/best_params.yaml")
    best = path.read_text()
    assert "metric: adapted_rand" in best
    day.run("--mode=test", "--workdir=run", STUDIED)
    assert "tuned on" in newest(day)["threshold_origin"]


def test_then_skeletons(day, trained):
    """The same run, and nothing to be emptied."""
    line = day.slip(
        "--mode=test", "--workdir=run", "--config.data.test.skeleton=trace.pkl"
    )
    assert "trace.pkl" in line and "--config.evaluate.skeleton=FILE" in line
    for key in ("evaluate", "data.test"):  # what the line says, and what was meant
        said = day.run(
            "--mode=test", "--workdir=run", f"--config.{key}.skeleton=traced.pkl"
        )
        assert "NERL" in said
        assert 0 <= newest(day)["skeletons"]["nerl"] <= 1


PLAIN = ["--config.decode.method=affinity_cc", "--config.decode.threshold=.5"]


def test_affinities_of_another_program(day, trained):
    """float32 in z y x c without a word for it; two such files in one folder."""
    with h5py.File(day.folder / "labels.h5") as file:
        labels = file["labels"][...].T  # x y z
    affinities = np.zeros((3, *labels.shape), np.float32)
    for axis in range(3):
        one, other = (np.take(labels, range(s, 63 + s), axis) for s in (0, 1))
        lower = [slice(None)] * 3
        lower[axis] = slice(0, 63)
        affinities[(axis, *lower)] = (one == other) & (one > 0)
    for name, values in (("theirs", affinities), ("others", 0.9 * affinities)):
        with h5py.File(day.folder / f"{name}.h5", "w") as file:
            file["affs"] = values.transpose(3, 2, 1, 0)
    step = ["--workdir=run", "--mode=decode", *PLAIN]
    line = day.slip(*step, "--config.decode.input=theirs.h5")
    assert "theirs.h5#zyxc" in line
    line = day.slip(*step, "--config.decode.input=theirs.h5#zyxc")
    assert "set --config.decode.affinity_mask= (none)" in line
    step.append("--config.decode.affinity_mask=")
    line = day.slip(
        "--workdir=run", "--mode=decode", "--config.decode.input=theirs.h5#zyxc"
    )
    assert "chain3" in line  # the run's own chain takes six channels
    errors = []
    for name in ("theirs", "others"):
        before = set(day.folder.glob("run/decoded_*.zarr"))
        day.run(*step, f"--config.decode.input={name}.h5#zyxc")
        (made,) = set(day.folder.glob("run/decoded_*.zarr")) - before
        segments = np.unique(open_labels(made).read())
        # Neurites of the labels; what the cube's faces cut apart adds a few.
        assert 0 <= len(segments) - len(np.unique(labels)) <= 5
        score = [
            "--workdir=run",
            "--mode=evaluate",
            f"--config.evaluate.segmentation={made.relative_to(day.folder)}",
            "--config.evaluate.label=labels.h5#zyx",
        ]
        day.run(*score)
        errors.append(day.scores(f"run/eval_{made.stem}.json"))
    assert [e["dense"]["adapted_rand_error"] < 0.02 for e in errors] == [True, True]


def test_a_stack_of_slices_is_the_same_image(day, trained):
    (day.folder / "slices").mkdir()
    for z, plane in enumerate(tifffile.imread(day.folder / "em.tif")):
        tifffile.imwrite(day.folder / "slices" / f"em_{z}.tif", plane)
    day.run(
        "--workdir=run",
        "--mode=predict",
        "--config.predict.input=slices",
        "--config.predict.roi=0:16,0:16,0:16",
        "--config.predict.output=of_slices.zarr",
    )
    day.run(
        "--workdir=run",
        "--mode=predict",
        "--config.predict.input=em.tif",
        "--config.predict.roi=0:16,0:16,0:16",
        "--config.predict.output=of_stack.zarr",
    )
    one, other = (
        open_volume(day.folder / name, axes="cxyz").read()
        for name in ("of_slices.zarr", "of_stack.zarr")
    )
    np.testing.assert_array_equal(one, other)
