"""Where a prediction goes, as keys name it."""

import pathlib

import pytest

from nisbjax.artifacts import VolumeDir
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.keys.checks import optional
from nisbjax.modes.prediction import output_paths, predicted
from nisbjax.store import exported
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import create_zarr

PLACE = VolumeDir(pathlib.Path("/run/seed6"))


@pytest.mark.parametrize(
    "keys, work, final",
    [
        ({}, "/run/seed6/raw_x1_ch0-1-2.zarr", "/run/seed6/raw_x1_ch0-1-2.h5"),
        (
            {"format": "zarr", "channels": (3, 0)},
            "/run/seed6/raw_x1_ch3-0.zarr",
            "/run/seed6/raw_x1_ch3-0.zarr",
        ),
        ({"output": "a/b.h5"}, "a/b.zarr", "a/b.h5"),
        ({"output": "a/b.zarr", "format": "h5"}, "a/b.zarr", "a/b.zarr"),
        ({"output": "none", "format": "zarr"}, *["/run/seed6/raw_x1_ch0-1-2.zarr"] * 2),
    ],
)
def test_work_file_and_final_file(keys, work, final):
    section = base_config().predict
    section.update(keys)
    found = output_paths(section, PLACE, optional(section.output))
    assert found == (pathlib.Path(work), pathlib.Path(final))


def test_a_name_of_another_format_is_refused():
    section = base_config().predict
    with pytest.raises(InputError, match="wanted a name that ends in .zarr or .h5"):
        output_paths(section, PLACE, "raw.npy")


def test_an_hdf5_file_of_another_prediction_is_not_taken(tmp_path, caplog):
    """The zarr was predicted anew with predict.format=zarr, the export beside it is old."""
    place = VolumeDir(tmp_path)
    work, final = place.raw("zarr"), place.raw("h5")
    with Manifest(work, {"step": 2}) as manifest:
        volume = create_zarr(
            work, shape=(3, 2, 2, 2), dtype="float16", chunks=(1, 2, 2, 2), axes="cxyz"
        )
        manifest.finish()
    for step, taken in ((1, work), (2, final)):
        exported.export_hdf5(volume, final, made_from={"step": step})
        caplog.clear()
        assert predicted(place, (0, 1, 2)) == taken
        assert bool(caplog.messages) == (step == 1)
    work.rename(tmp_path / "moved")
    assert predicted(place, (0, 1, 2)) == final
