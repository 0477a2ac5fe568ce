"""QC on files: planted planes and halo are found, and go from report to mask."""

import os

import h5py
import matplotlib.image as mpimg
import numpy as np
import pytest
import tensorstore as ts

from nisbjax.artifacts import Run, VolumeDir
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.modes import alone
from nisbjax.modes.outputs import NamedOutputs
from nisbjax.modes.quality import paths
from nisbjax.qc import (
    end_planes,
    front_matter,
    gathering,
    mask_file,
    stage,
    statistics,
    statistics_file,
)
from nisbjax.qc.border import find_border
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume, create_zarr, open_affinities

SHAPE = (40, 30, 90)


@pytest.fixture
def config():
    c = base_config().unlock()
    c.qc.border_width = 4
    return c


def check(config, target, **given):
    memory = config.decode.memory_gb
    return stage.check(
        config.qc, paths(target, NamedOutputs.of(config)), **given, memory_gb=memory
    )


def run(config, target, **given):
    memory = config.decode.memory_gb
    return stage.run(
        config.qc, paths(target, NamedOutputs.of(config)), **given, memory_gb=memory
    )


def planted():
    """Affinities 0.6, 0.1 in planes 0-34, 60 and 88-89; halo: dark, affinity 0.9 there."""
    draw = np.random.default_rng(0)
    affinities = draw.normal(0.6, 0.01, (3, *SHAPE)).astype(np.float16)
    image = draw.integers(80, 200, (*SHAPE, 1), np.uint8)
    image[:4], affinities[:, :4] = 10, 0.9
    for z in (*range(35), 60, 88, 89):
        affinities[:, :, :, z] = 0.1
    affinities[0, 20, 20, 50], affinities[1, 20, 20, 50] = np.nan, np.inf
    return affinities, image


@pytest.fixture
def files(tmp_path):
    affinities, image = planted()
    volume = create_zarr(
        tmp_path / "img", shape=image.shape, dtype="uint8", chunks=(16,) * 3 + (1,),
        axes="xyzc",
    )  # fmt: skip
    volume.write(..., image)
    # A foreign file: dataset main, no attributes.
    with h5py.File(tmp_path / "raw_x1.h5", "w") as file:
        file.create_dataset("main", data=affinities, chunks=True, compression="gzip")
    return tmp_path / "raw_x1.h5", tmp_path / "img"


def test_planted_planes_and_halo_are_reported(tmp_path, config, files):
    prediction, image = files
    target = VolumeDir(tmp_path / "seed6")
    path = check(config, target, prediction=prediction, image=image)
    front = front_matter.read(path)
    # 35 bad planes saturate the reference's 30; ours goes on to plane 35.
    assert (front.low_z, front.high_z) == (35, 88)
    assert (front.border_width, front.bg_thresh) == (4, 30)
    assert (front.img, front.out) == (str(image), str(target.mask))
    text = path.read_text()
    keys = [line.split(":")[0] for line in text.splitlines()[1:7]]
    assert keys == ["img", "out", "low_z", "high_z", "bg_thresh", "border_width"]
    assert text.splitlines()[3:7] == [
        "low_z: 35", "high_z: 88", "bg_thresh: 30", "border_width: 4",
    ]  # fmt: skip
    assert "low_z **saturated**: none of the first 30 planes passes" in text
    assert "high_z **saturated**" not in text
    assert "at each end says low_z 30, high_z 88" in text
    assert "1 planes between the cuts do not pass and are kept: 60" in text
    assert "NaN: 1, Inf: 1" in text
    assert "(OK)" in text
    # Ring background: planes 1, 13, 25, 38, 50, 63, 75, 88; 4 x 30 dark voxels at 0.9,
    # in good planes; nothing inside the ring is dark.
    assert "   38   x        120     0.8999    0.8999    1.0000          nan" in text
    assert "   13   x        120     0.1000    0.1000    0.0000          nan" in text
    for what in ("planes", "cuts", "border"):
        name = f"check_aff_report.{what}.png"
        assert f"![{name}]({name})" in text
        assert (path.parent / name).read_bytes().startswith(b"\x89PNG")
    assert not list(path.parent.glob("*.partial"))


def test_report_and_mask_in_one_go(tmp_path, config, files):
    prediction, image = files
    target = VolumeDir(tmp_path / "seed6")
    path = run(config, target, prediction=prediction, image=image)
    assert path == target.mask
    with h5py.File(path) as file:
        kept = file["main"][:]
    want = np.zeros(SHAPE, np.uint8)
    want[4:, :, 35:88] = 1  # the dark halo is x < 4; the rest of the ring is bright
    np.testing.assert_array_equal(kept, want)
    # Edited by hand and built again, in place of the report's own mask.
    edited = target.qc_report.read_text().replace("low_z: 35", "low_z: 80")
    target.qc_report.write_text(edited)
    assert mask_file.from_report(target.qc_report) == target.mask
    with h5py.File(path) as file:
        assert file["main"][:].sum() == 36 * 30 * 8


def test_a_report_that_was_edited_is_not_lost(tmp_path, config, files, caplog):
    prediction, image = files
    target = VolumeDir(tmp_path / "seed6")
    path = check(config, target, prediction=prediction, image=image)
    edited = path.read_text().replace("low_z: 35", "low_z: 40")
    path.write_text(edited)
    check(config, target, prediction=prediction, image=image)
    assert front_matter.read(path).low_z == 35
    kept = path.with_name("check_aff_report.before.md")
    assert kept.read_text() == edited
    check(config, target, prediction=prediction, image=image)
    assert kept.read_text() == edited
    assert "said another low_z; it is kept as check_aff_report.before.md" in caplog.text
    # Other words alone, and then again: each has its own copy, an equal one none.
    caplog.clear()
    remarked = path.read_text() + "plane 60 looks fine\n"
    for _ in range(2):
        path.write_text(remarked)
        check(config, target, prediction=prediction, image=image)
    assert "had another text; it is kept as check_aff_report.before-2.md" in caplog.text
    assert path.with_name("check_aff_report.before-2.md").read_text() == remarked
    assert kept.read_text() == edited
    assert len(list(target.path.glob("*.before*"))) == 2


def test_a_report_goes_over_no_device_and_through_links(tmp_path, config, files):
    """Nor does a plot beside it, and it is said before anything is scanned or written."""
    prediction, image = files
    target = VolumeDir(tmp_path / "seed6")
    (tmp_path / "there").mkdir()
    os.mkfifo(tmp_path / "there" / "r.cuts.png")
    for name, text in (
        ("/dev/full", "/dev/full is a device"),
        (str(tmp_path / "there"), "there is a folder"),
        (str(tmp_path / "there" / "r.md"), "r.cuts.png is a device, pipe"),
    ):
        config.qc.report = name
        with pytest.raises(InputError, match=text):
            check(config, target, prediction=prediction, image=image)
    assert os.listdir(tmp_path / "there") == ["r.cuts.png"]
    assert not target.path.exists()
    (tmp_path / "link.md").symlink_to("elsewhere.md")
    config.qc.report = str(tmp_path / "link.md")
    check(config, target, prediction=prediction, image=image)
    assert (tmp_path / "link.md").is_symlink()
    assert front_matter.read(tmp_path / "elsewhere.md").low_z == 35


def test_a_report_that_another_process_writes_is_left_to_it(
    tmp_path, config, files, held_elsewhere
):
    target = VolumeDir(tmp_path / "seed6")
    process = held_elsewhere(target.path / "check_aff_report.md.lock")
    with pytest.raises(
        InputError,
        match=f"check_aff_report.md is being written by process {process} on ",
    ):
        check(config, target, prediction=files[0], image=files[1])
    assert os.listdir(target.path) == ["check_aff_report.md.lock"]


def test_an_image_of_another_shape_makes_no_mask(tmp_path, config, files):
    prediction, _ = files
    np.save(tmp_path / "other.npy", np.zeros((40, 30, 89), np.uint8))
    target = VolumeDir(tmp_path / "seed6")
    with pytest.raises(InputError, match=r"other.npy \(40, 30, 89\) has not the shape"):
        run(config, target, prediction=prediction, image=tmp_path / "other.npy")
    assert not target.path.exists()


def test_a_named_report_says_where_its_mask_goes(tmp_path, config, files):
    prediction, image = files
    config.mask.output = str(tmp_path / "mine.h5")
    config.qc.report = str(tmp_path / "mine.md")
    target = VolumeDir(tmp_path / "seed6")
    check(config, target, prediction=prediction, image=image)
    config.mask.output, config.mask.report = "", str(tmp_path / "mine.md")
    assert alone.mask(config, Run(tmp_path), "") == tmp_path / "mine.h5"


def test_gathered_statistics_are_taken_instead_of_the_file(
    tmp_path, config, files, monkeypatch
):
    prediction, image = files
    target = VolumeDir(tmp_path / "seed6")
    target.path.mkdir()
    affinities, _ = planted()
    border = find_border(stage.open_image(image), n_z_border=8, width=4, thresh=30.0)
    gathered = statistics.measure(affinities, (0, 0, 0), border, SHAPE)
    made_from = gathering.identity({}, config.qc)
    statistics_file.save(gathered, target.plane_statistics, made_from)
    want = check(config, target, prediction=prediction, image=image).read_text()
    target.plane_statistics.rename(tmp_path / "aside")
    scanned = check(config, target, prediction=prediction, image=image)
    assert scanned.read_text() == want
    (tmp_path / "aside").rename(target.plane_statistics)

    # Not a voxel is read again, for the pictures either.
    def refuse(*_, **__):
        raise AssertionError("the prediction was read again")

    def without_voxels(path):
        found = open_affinities(path)
        store = ts.virtual_chunked(refuse, dtype=ts.float16, shape=found.shape)
        return Volume(store, "cxyz", found.attributes, found.source)

    monkeypatch.setattr(stage, "open_affinities", without_voxels)
    again = check(config, target, prediction=prediction, image=image)
    assert again.read_text() == want
    config.qc.border_width = 5  # another ring: the samples do not fit
    with pytest.raises(Exception, match="read again"):
        check(config, target, prediction=prediction, image=image)


def test_a_case_worked_by_hand(tmp_path, config):
    """Black background (bg_thresh 0), a saturated end, a bad plane inside.

    4 x 3 x 8 voxels, one value for each plane and channel, windows of 2 planes, every
    plane sampled:
      z            0    1    2    3    4    5    6    7
      channel x   .1   .1   .1   .9   .9   .9   .9   .9   mean 4.8 / 8 = .6, cutoff .55
      channel y   .5   .5   .5   .5   .1   .5   .5   .5   mean 3.6 / 8 = .45, cutoff .40
      channel z   .5 everywhere                            mean .5, cutoff .45
    Planes 0 to 2 fail in x, plane 4 in y. None of planes 0 and 1 passes: the reference says
    low_z 2 without a word, ours goes on to 3. Plane 7 passes: high_z 8. Plane 4 is inside.
    The ring of width 1 is all but (1, 1) and (2, 1); voxel (0, 0, 5) is 0, (0, 1, 5) is 1.
    Kept: 12 voxels of each of the 5 planes 3 to 7, less one.
    """
    config.qc.update({"bg_thresh": 0.0, "border_width": 1, "refine_window": 2})
    config.qc.z_stride = 1
    values = np.full((3, 4, 3, 8), 0.5, np.float16)
    values[0] = 0.9
    values[0, ..., :3] = values[1, ..., 4] = 0.1
    pixels = np.full((4, 3, 8), 200, np.uint8)
    pixels[0, 0, 5], pixels[0, 1, 5], pixels[1, 1, 6] = 0, 1, 0
    np.save(tmp_path / "raw.npy", values)
    np.save(tmp_path / "img.npy", pixels)
    target = VolumeDir(tmp_path / "seed6")
    run(config, target, prediction=tmp_path / "raw.npy", image=tmp_path / "img.npy")
    front = front_matter.read(target.qc_report)
    assert (front.low_z, front.high_z, front.bg_thresh) == (3, 8, 0)
    text = target.qc_report.read_text()
    assert "low_z **saturated**: none of the first 2 planes passes" in text
    assert "says low_z 2, high_z 8" in text
    assert "1 planes between the cuts do not pass and are kept: 4" in text
    assert "| x | 0.5999 | 0.5499 |" in text  # .1 and .9 as 16-bit floats
    with h5py.File(target.mask) as file:
        kept = file["main"][:]
    want = np.ones((4, 3, 8), np.uint8)
    want[:, :, :3] = want[0, 0, 5] = 0
    np.testing.assert_array_equal(kept, want)
    assert kept.sum() == 5 * 12 - 1


def test_a_cut_deeper_than_the_pictures_is_read_for_its_own(
    tmp_path, config, files, monkeypatch
):
    prediction, image = files
    shown = {}
    for depth in (64, 5):  # the cuts are at planes 35 and 88 of 90
        monkeypatch.setattr(end_planes, "DEPTH", depth)
        target = VolumeDir(tmp_path / str(depth))
        check(config, target, prediction=prediction, image=image)
        picture = target.qc_report.with_name("check_aff_report.cuts.png")
        shown[depth] = mpimg.imread(picture)
    np.testing.assert_allclose(shown[5], shown[64], atol=2 / 255)


def test_without_an_image_the_border_is_skipped(tmp_path, config, files):
    prediction, _ = files
    path = check(config, VolumeDir(tmp_path / "a"), prediction=prediction, image="")
    assert "WARN: no image of the prediction's shape; skipped" in path.read_text()
    assert front_matter.read(path).img == ""


def test_a_report_says_which_chunks_are_not_there(tmp_path, config):
    keys = {"shape": (3, 4, 4, 90), "dtype": "float16", "chunks": (3, 4, 4, 30)}
    array = create_zarr(tmp_path / "raw.zarr", **keys, axes="cxyz")
    array.write(np.s_[..., :60], np.full((3, 4, 4, 60), 0.5, np.float16))
    config.qc.border_width = 0
    target = VolumeDir(tmp_path / "a")
    path = check(config, target, prediction=tmp_path / "raw.zarr", image="")
    said = "- 1 of 3 chunks are not there and read as the fill value 0"
    assert said in path.read_text().splitlines()


@pytest.mark.parametrize(
    "key, value, text",
    [
        ("z_stride", 0, "qc.z_stride is 0; wanted 1 or more planes"),
        ("border_width", -1, "qc.border_width is -1; wanted 0 or more"),
        ("drift_thresh", float("nan"), "qc.drift_thresh is nan; wanted 0 or more"),
        ("bg_thresh", float("nan"), "qc.bg_thresh is nan; wanted a finite intensity"),
    ],
)
def test_keys_without_meaning_are_refused(tmp_path, config, files, key, value, text):
    config.qc[key] = value
    with pytest.raises(InputError, match=text):
        check(config, VolumeDir(tmp_path / "a"), prediction=files[0], image=files[1])
    assert not (tmp_path / "a").exists()


def test_a_prediction_that_is_not_there_or_unfinished_is_refused(
    tmp_path, config, files
):
    target = VolumeDir(tmp_path / "a")
    with pytest.raises(InputError, match="no volume at /nowhere.h5"):
        check(config, target, prediction="/nowhere.h5", image=files[1])
    begun = tmp_path / "begun.zarr"
    Manifest(begun, {}).close()
    with pytest.raises(InputError, match="is unfinished"):
        check(config, VolumeDir(tmp_path / "a"), prediction=begun, image=files[1])
