"""Where a prediction goes, as keys name it."""

import pathlib

import pytest

from nisbjax.artifacts import VolumeDir
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.keys.checks import optional
from nisbjax.modes.prediction import output_paths

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
