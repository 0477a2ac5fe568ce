"""Names of a run's files, and which run is the newest."""

import re

import pytest

from nisbjax.artifacts import (
    Run,
    TuneDir,
    VolumeDir,
    file_name,
    folder_name,
    folder_of,
    name_among_kinds,
    new_run,
    newest_run,
    volume_name,
)
from nisbjax.errors import InputError


@pytest.mark.parametrize(
    "path, name",
    [
        ("/nisb/test/seed6/data.zarr/img", "seed6"),
        ("/nisb/test/seed6/data.zarr", "seed6"),
        ("/nisb/seed6.h5", "seed6"),
        ("/nisb/cube.ome.tif", "cube"),
        ("/nisb/seed6/raw.h5/main", "seed6"),
        ("/img", "volume"),
    ],
)
def test_a_volume_is_named_by_what_tells_something(path, name):
    assert volume_name(path) == name


def test_the_tree_of_the_tutorial(tmp_path):
    volume = Run(tmp_path).test(200_000, "seed6")
    assert volume.path == tmp_path / "test_step=00200000" / "seed6"
    assert volume.name == "seed6"
    assert volume.raw().name == "raw_x1_ch0-1-2.h5"
    assert volume.mask.name == "affinity_mask.h5"
    assert volume.qc_report.name == "check_aff_report.md"
    decoded = volume.decoded("affinity_cc", 0.7)
    assert decoded.name == "decoded_x1_ch0-1-2_affinity_cc_0.7.zarr"
    chained = volume.decoded("chain", 0.2, 0.8, channels=(0, 1, 2, 3))
    assert chained.name == "decoded_x1_ch0-1-2-3_chain_0.2_0.8.zarr"
    report = volume.evaluation(decoded, ".txt")
    assert report.name == "eval_decoded_x1_ch0-1-2_affinity_cc_0.7.txt"
    picture = volume.slices(decoded)
    assert picture.name == "slices_decoded_x1_ch0-1-2_affinity_cc_0.7.png"
    tuning = Run(tmp_path).tune(7)
    assert tuning == TuneDir(tmp_path / "tune_step=00000007")
    assert tuning.prediction("seed5").path == tuning.path / "predictions" / "seed5"
    assert tuning.database("study").name == "study.db"


@pytest.mark.parametrize(
    "path, name, folder",
    [
        ("/d/a.h5", "a", "/d"),
        ("/d/a.h5#zyxc", "a", "/d"),
        ("/d/a.h5/main", "a", "/d"),
        ("/d/a.h5/two/aff", "a_two_aff", "/d"),
        ("/d/seed6/data.zarr/seg", "data_seg", "/d/seed6"),
        ("/d/x.zarr", "x", "/d"),
        ("/d/x.zarr/aff.zarr", "aff", "/d/x.zarr"),
        ("/d/slices", "slices", "/d"),
    ],
)
def test_a_file_is_named_by_what_tells_it_from_its_neighbours(path, name, folder):
    assert file_name(path) == name
    assert str(folder_of(path)) == folder


@pytest.mark.parametrize(
    "path, folder",
    [
        ("/d/e/a.h5/main", "e"),
        ("s3://bucket/a.zarr", "bucket"),
        ("s3://bucket/seed6/a.zarr/aff", "seed6"),
        ("http://127.0.0.1:8000/a.zarr", "127.0.0.1_8000"),
    ],
)
def test_the_folder_of_a_file_has_a_name_at_an_address_too(path, folder):
    assert folder_name(path) == folder


def test_what_is_made_of_a_named_file_says_so(tmp_path):
    place = VolumeDir(tmp_path, "a")
    assert place.mask.name == "a_affinity_mask.h5"
    assert place.qc_report.name == "a_check_aff_report.md"
    decoded = place.decoded("affinity_cc", 0.7, also=("nomask",))
    assert decoded.name == "decoded_a_x1_ch0-1-2_affinity_cc_0.7_nomask.zarr"
    assert place.evaluation(tmp_path / "main", ".txt").name == "eval_a.txt"


def test_files_of_one_name_in_two_formats_are_told_apart(tmp_path):
    files = ("a.zarr", "a.h5#zyx", "a.npy", "a.tif", "a.h5/main")
    names = ["a", "a_h5", "a_npy", "a_tif", "a_h5"]
    assert [name_among_kinds(tmp_path / name) for name in files] == names
    place = VolumeDir(tmp_path)
    reports = [place.evaluation(tmp_path / name, ".txt").name for name in files]
    assert reports == [f"eval_{name}.txt" for name in names]


def test_affinities_are_found_in_either_format(tmp_path):
    volume = VolumeDir(tmp_path)
    with pytest.raises(
        InputError, match="no raw_x1_ch0-1-2.zarr or .h5 in .*mode=pred"
    ):
        volume.find_raw()
    for format in ("zarr", "h5"):  # what testing decodes, where there are both
        volume.raw(format).touch()
        assert volume.find_raw() == volume.raw(format)
    # The names say which channels; three are there where six are.
    six = tuple(range(6))
    with pytest.raises(InputError, match="no raw_x1_ch0-1-2-3-4-5.zarr or .h5 in"):
        volume.find_raw(six)
    volume.raw("zarr", six).touch()
    assert volume.find_raw(six).name == "raw_x1_ch0-1-2-3-4-5.zarr"
    assert volume.find_raw() == volume.raw("h5")
    volume.raw("h5").unlink()
    assert volume.find_raw() == volume.raw("zarr")
    volume.raw("zarr").unlink()
    assert volume.find_raw() == volume.raw("zarr", six)


def test_the_newest_run_is_the_last_that_has_a_checkpoint(tmp_path):
    with pytest.raises(
        InputError, match="no run of liconn under .*; train one, or name"
    ):
        newest_run(tmp_path, "liconn")
    for stamp in ("20260101_000000", "20260102_000000"):
        for step in ("10", "20"):
            (tmp_path / "liconn" / stamp / "checkpoints" / step / "params").mkdir(
                parents=True
            )
    # Later ones ended before their first checkpoint, or while it was written.
    (tmp_path / "liconn" / "20260103_000000" / "checkpoints").mkdir(parents=True)
    torn = tmp_path / "liconn" / "20260104_000000" / "checkpoints"
    (torn / "10.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    assert newest_run(tmp_path, "liconn").path.name == "20260102_000000"


def test_an_import_is_no_newest_run(tmp_path):
    for stamp in ("20260101_000000", "imported_20260102_000000"):
        folder = tmp_path / "liconn" / stamp / "checkpoints" / "10" / "params"
        folder.mkdir(parents=True)
    assert newest_run(tmp_path, "liconn").path.name == "20260101_000000"
    (tmp_path / "liconn" / "20260101_000000").rename(tmp_path / "away")
    with pytest.raises(
        InputError, match=r"--workdir=DIR \(imported: .*/imported_20260102_000000\)$"
    ):
        newest_run(tmp_path, "liconn")


def test_a_new_run_is_named_by_the_time(tmp_path):
    run = new_run(tmp_path, "liconn")
    assert re.fullmatch(r"\d{8}_\d{6}", run.path.name)
    assert run.path.parent == tmp_path / "liconn" and not run.path.exists()
