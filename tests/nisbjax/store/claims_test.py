"""Headers that claim the impossible are refused by arithmetic, in every format."""

import json
import struct

import h5py
import numpy as np
import psutil
import pytest
import tifffile
import zarr

from nisbjax.errors import InputError
from nisbjax.store.claims import require_chunks_fit, require_possible
from nisbjax.store.volume import create_zarr, from_array, open_volume

VALUES = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)


@pytest.mark.parametrize(
    "shape", [5, "5,6,7", None, [5, 6, 7.0], [5, -6, 7], [5, True, 7], [1 << 63, 1, 1]]
)
def test_shapes_that_are_none(shape):
    with pytest.raises(
        InputError, match="a claims shape .*; wanted whole numbers from 0"
    ):
        require_possible("a", shape, [1, 1, 1], 1)


def test_chunks_that_are_none():
    with pytest.raises(
        InputError, match=r"claims chunks \[0, 1, 1\]; wanted whole numb"
    ):
        require_possible("a", [5, 6, 7], [0, 1, 1], 1)
    with pytest.raises(
        InputError, match="claims 3 axes in chunks of 2; wanted as many"
    ):
        require_possible("a", [5, 6, 7], [1, 1], 1)
    with pytest.raises(
        InputError, match="claims 33 axes in chunks of 33; .* at most 32"
    ):
        require_possible("a", [1] * 33, [1] * 33, 1)


def test_more_voxels_than_any_volume():
    require_possible("a", [1 << 20, 1 << 20, 1 << 13], [64, 64, 64], 1)
    with pytest.raises(
        InputError, match=r"claims the shape .*, 1.2e\+18 voxels; wanted"
    ):
        require_possible("a", [1 << 20] * 3, [64, 64, 64], 1)


def test_a_chunk_that_exceeds_the_machine():
    memory = psutil.virtual_memory().total
    require_possible("a", [1 << 40], [memory // 2], 1)
    message = "GB each, which do not fit this machine's .* GB of memory; write it again"
    with pytest.raises(InputError, match=message):
        require_possible("a", [1 << 40], [memory // 2 + 1], 1)
    with pytest.raises(InputError, match=message):
        require_possible("a", [1 << 40], [memory // 4], 4)


def rewritten(path, name, **changes):
    metadata = json.loads((path / name).read_text())
    for key, value in changes.items():
        at = metadata
        *above, last = key.split("__")
        for step in above:
            at = at[step]
        at[last] = value
    (path / name).write_text(json.dumps(metadata))
    return path


def zarr_of(path, version, **options):
    zarr.create_array(
        str(path), data=VALUES, chunks=(2, 3, 4), zarr_format=version, **options
    )
    return path


def npy_of(path, shape, dtype="<u2"):
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    return path


def hostile(folder):
    """One file for each format and claim."""
    grid = "chunk_grid__configuration__chunk_shape"
    huge, many = [1 << 14, 1 << 14, 1 << 13], [1 << 20] * 3
    for version, name, key in ((2, ".zarray", "chunks"), (3, "zarr.json", grid)):
        for word, changes in (
            ("chunk", {key: huge}),
            ("voxels", {"shape": many}),
            ("negative", {"shape": [-5, 6, 7]}),
            ("rank", {"shape": [1] * 33, key: [1] * 33}),
            ("float", {"shape": [5.0, 6, 7]}),
        ):
            path = zarr_of(folder / f"{word}{version}.zarr", version)
            yield rewritten(path, name, **changes)
    yield rewritten(zarr_of(folder / "item.zarr", 2), ".zarray", dtype=f"<u{1 << 41}")
    sharded = zarr_of(folder / "shard.zarr", 3, shards=(4, 6, 8))
    yield rewritten(sharded, "zarr.json", **{grid: [1 << 20, 1 << 20, 4]})
    with h5py.File(folder / "voxels.h5", "w") as file:
        file.create_dataset("main", (1 << 20,) * 3, "u1", chunks=(8, 8, 8))
    yield folder / "voxels.h5"
    with h5py.File(folder / "cut.h5", "w") as file:
        file["main"] = VALUES
        offset = file["main"].id.get_offset()
    data = bytearray((folder / "cut.h5").read_bytes())
    assert data.count(struct.pack("<QQQ", 5, 6, 7)) > 0
    # Four planes more than there are, in a file that ends behind its data.
    data = data.replace(struct.pack("<QQQ", 5, 6, 7), struct.pack("<QQQ", 9, 6, 7))
    (folder / "cut.h5").write_bytes(data)
    assert offset + VALUES.nbytes <= len(data)
    yield folder / "cut.h5"
    yield npy_of(folder / "cut.npy", (5, 6, 7))
    yield npy_of(folder / "voxels.npy", (1 << 20, 1 << 20, 1 << 20))
    yield npy_of(folder / "negative.npy", (-5, 6, 7))
    yield npy_of(folder / "rank.npy", (1,) * 33)
    yield npy_of(folder / "float.npy", (5.0, 6, 7))
    tifffile.imwrite(folder / "a.tif", VALUES, photometric="minisblack", metadata=None)
    data = (folder / "a.tif").read_bytes()
    (folder / "cut.tif").write_bytes(data[:-20])
    yield folder / "cut.tif"
    page = np.zeros((2, 3), np.uint8)
    tifffile.imwrite(
        folder / "page.tif", page, photometric="minisblack", compression="zlib"
    )
    with tifffile.TiffFile(folder / "page.tif", mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[tag].overwrite(1 << 22, dtype="I")
    yield folder / "page.tif"


def test_claims_in_every_format(tmp_path):
    seen = 0
    for path in hostile(tmp_path):
        with pytest.raises(
            InputError, match="claims|was cut|cannot be read as"
        ) as info:
            open_volume(path)
        assert str(path) in str(info.value) and "\n" not in str(info.value)
        seen += 1
    assert seen == 21


def test_chunks_must_fit_the_memory_of_a_stage(tmp_path):
    options = {"dtype": np.uint8, "axes": "xyz"}
    shape = (256, 256, 256)  # 16.8 MB in one chunk, twice that while it is read
    whole = create_zarr(tmp_path / "a.zarr", shape=shape, chunks=shape, **options)
    require_chunks_fit(whole, 0.034)
    with pytest.raises(
        InputError,
        match=r"a.zarr has chunks of .*, 0.0168 GB each; reading one takes twi",
    ):
        require_chunks_fit(whole, 0.033)
    parts = create_zarr(tmp_path / "b.zarr", shape=shape, chunks=(64,) * 3, **options)
    require_chunks_fit(parts, 0.001)  # half a MB is less than Python itself takes
    require_chunks_fit(from_array(np.zeros(shape, np.uint8), "xyz"), 0.001)


def test_contiguous_files_have_small_chunks(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("main", (3, 1000, 1000, 1000), "f4")  # never written
    volume = open_volume(tmp_path / "a.h5")
    assert volume.chunks == (1, 64, 64, 256)
    assert volume.read((2, 999, 999, slice(990, 1000))).tolist() == [0] * 10
