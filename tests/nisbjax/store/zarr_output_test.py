"""An array to write to: made, found again, or in the way."""

import numpy as np
import pytest
from small_volumes import SHAPE, VALUES, written

from nisbjax.errors import InputError
from nisbjax.store import zarr_output
from nisbjax.store.volume import create_zarr, open_volume


def test_an_interrupted_writer_opens_its_file_again(tmp_path):
    written(tmp_path / "a.zarr")
    options = {"shape": SHAPE, "dtype": "uint16", "chunks": (4, 4, 4), "axes": "xyz"}
    again = create_zarr(tmp_path / "a.zarr", **options)
    np.testing.assert_array_equal(again.read(), VALUES)
    for change in ({"shape": (5, 6, 8)}, {"dtype": "uint8"}, {"chunks": (2, 4, 4)}):
        with pytest.raises(
            InputError, match="exists with another shape, type or chunks than"
        ):
            create_zarr(tmp_path / "a.zarr", **{**options, **change})
    np.testing.assert_array_equal(open_volume(tmp_path / "a.zarr").read(), VALUES)
    fresh = create_zarr(
        tmp_path / "a.zarr", **{**options, "dtype": "uint8"}, overwrite=True
    )
    assert fresh.dtype == np.uint8 and not fresh.read().any()


def test_an_array_goes_on_with_the_compressor_that_it_began_with(tmp_path):
    """A prediction of an earlier version is not in the way of one that compresses less."""
    options = {"shape": SHAPE, "dtype": "uint16", "chunks": (4, 4, 4), "axes": "xyz"}
    written(tmp_path / "a.zarr")
    before = (tmp_path / "a.zarr" / ".zarray").read_bytes()
    fast = {"id": "blosc", "cname": "lz4", "clevel": 1, "shuffle": 1}
    again = create_zarr(tmp_path / "a.zarr", **options, compressor=fast)
    np.testing.assert_array_equal(again.read(), VALUES)
    assert (tmp_path / "a.zarr" / ".zarray").read_bytes() == before
    assert b'"zstd"' in before and b'"lz4"' not in before
    create_zarr(tmp_path / "b.zarr", **options, compressor=fast)
    assert b'"lz4"' in (tmp_path / "b.zarr" / ".zarray").read_bytes()


def test_attributes_of_an_array_that_is_there_are_left_as_they_are(tmp_path):
    options = {"shape": SHAPE, "dtype": "uint16", "chunks": (4, 4, 4), "axes": "xyz"}
    create_zarr(tmp_path / "a.zarr", **options, attributes={"segments": 7})
    before = (tmp_path / "a.zarr" / ".zattrs").read_bytes()
    create_zarr(tmp_path / "a.zarr", **options, attributes={"segments": 0})
    assert (tmp_path / "a.zarr" / ".zattrs").read_bytes() == before
    # Killed after the array's metadata and before its attributes.
    (tmp_path / "a.zarr" / ".zattrs").unlink()
    create_zarr(tmp_path / "a.zarr", **options, attributes={"segments": 7})
    assert (tmp_path / "a.zarr" / ".zattrs").read_bytes() == before


def test_what_keeps_an_array_from_being_made_is_said(tmp_path):
    """Another array only where there is one."""
    options = {"shape": SHAPE, "dtype": "uint16", "chunks": (4, 4, 4), "axes": "xyz"}
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Not a directory") as caught:
        create_zarr(tmp_path / "file/a.zarr", **options)
    assert not isinstance(caught.value, InputError)


def test_an_array_whose_metadata_are_cut_is_in_the_way(tmp_path):
    """The advice to run the stage that wrote it would end in the same line for ever."""
    keys = {"shape": (4, 4, 4), "dtype": "uint8", "chunks": (4, 4, 4), "axes": "xyz"}
    create_zarr(tmp_path / "a.zarr", **keys)
    create_zarr(tmp_path / "a.zarr", **keys)  # goes on with it
    (tmp_path / "a.zarr/.zarray").write_text('{"shape": [4')
    with pytest.raises(InputError, match="or stored in another way; remove it or name"):
        create_zarr(tmp_path / "a.zarr", **keys)


def test_metadata_cut_the_chunks_to_the_shape():
    wanted = zarr_output.metadata((5, 6, 7), "uint8", (4, 8, 7))
    assert wanted["chunks"] == [4, 6, 7] and wanted["dtype"] == "|u1"
    assert wanted["dimension_separator"] == "."
    # 2048^3 = 2^33 voxels are the most with all chunk files in one folder.
    large = zarr_output.metadata((2048, 2048, 2049), "uint8", (64, 64, 64))
    assert large["dimension_separator"] == "/"


def test_what_is_in_the_way_is_refused_before_anything_is_written(tmp_path):
    keys = {"shape": SHAPE, "dtype": "uint16", "chunks": (4, 4, 4)}
    zarr_output.require_writable(tmp_path / "none.zarr", **keys)
    written(tmp_path / "a.zarr")
    zarr_output.require_writable(tmp_path / "a.zarr", **keys)
    with pytest.raises(InputError, match="exists with another shape, type or chunks"):
        zarr_output.require_writable(tmp_path / "a.zarr", **{**keys, "dtype": "uint8"})
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
