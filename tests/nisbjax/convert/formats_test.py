"""Which format an output has, by its name or by key."""

import pathlib

import numpy as np
import pytest

from nisbjax.convert.formats import FORMATS, format_of, require_type
from nisbjax.errors import InputError
from nisbjax.keys import ranges


@pytest.mark.parametrize(
    "path, scales, name",
    [
        ("a.zarr", 0, "zarr2"),
        ("a.zarr", 1, "ome-zarr-0.4"),
        ("a.ome.zarr", 0, "ome-zarr-0.4"),
        ("a.n5", 0, "n5"),
        ("a.n5/raw/em", 0, "n5"),
        ("a.H5", 0, "hdf5"),
        ("a.hdf5", 0, "hdf5"),
        ("a.tif", 0, "tiff"),
        ("a.nii", 0, "nifti"),
        ("a.nii.gz", 0, "nifti-gz"),
        ("a.b2nd", 0, "blosc2"),
    ],
)
def test_the_name_says_it(path, scales, name):
    assert format_of(pathlib.Path(path), "auto", scales) is FORMATS[name]


def test_names_that_say_nothing():
    with pytest.raises(InputError, match="em does not say its format; end it in .zarr"):
        format_of(pathlib.Path("em"), "auto", 0)
    assert format_of(pathlib.Path("em"), "precomputed", 0).name == "precomputed"
    with pytest.raises(
        InputError, match="a.h5 has the name of HDF5 and convert.format"
    ):
        format_of(pathlib.Path("a.h5"), "zarr3", 0)
    with pytest.raises(InputError, match="convert.format"):
        format_of(pathlib.Path("a.h5"), "vtk", 0)


def test_types():
    require_type(FORMATS["n5"], "em", np.dtype("uint8"))
    with pytest.raises(
        InputError, match="em holds float16, which N5 has no type for; wanted uint8, "
    ):
        require_type(FORMATS["n5"], "em", np.dtype("float16"))


def test_keys_know_every_format_and_compression():
    for name, found in FORMATS.items():
        assert ranges.RANGES["convert.format"].holds(name)
        for compression in found.compressions:
            assert ranges.RANGES["convert.compression"].holds(compression)
