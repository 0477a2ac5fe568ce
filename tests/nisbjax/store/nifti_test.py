"""NIfTI files, written from the format's own definition (nifti1.h): 348 bytes, then voxels."""

import gzip
import pickle
import struct
import sys

import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import open_image, open_labels, open_volume

# x y z
VALUES = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
MICRON, MM, UNKNOWN = 3, 2, 0


def write(path, values=VALUES, zooms=(0.008, 0.009, 0.03), unit=MICRON, scale=(0, 0)):
    """A single file: header, four bytes that say no extension follows, voxels x fastest."""
    code = {"int16": 4, "float32": 16, "uint8": 2, "uint32": 768}[values.dtype.name]
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into(
        "<8h", header, 40, values.ndim, *values.shape, *[1] * (7 - values.ndim)
    )
    struct.pack_into("<hh", header, 70, code, values.dtype.itemsize * 8)
    struct.pack_into("<4f", header, 76, 1, *zooms)
    struct.pack_into("<fff", header, 108, 352, *scale)
    struct.pack_into("<b", header, 123, unit)
    header[344:348] = b"n+1\0"
    content = bytes(header) + bytes(4) + values.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII"])
def test_voxels_axes_and_size(tmp_path, name):
    path = write(tmp_path / name)
    volume = open_labels(path)
    np.testing.assert_array_equal(volume.read(), VALUES)
    np.testing.assert_array_equal(
        volume.read((2, slice(1, 3), slice(4, 7))), VALUES[2, 1:3, 4:7]
    )
    assert volume.attributes["voxel_size_nm"] == [8, 9, 30]
    store = pickle.loads(pickle.dumps(volume.store))
    np.testing.assert_array_equal(store.read().result(), VALUES)
    # Of arrays z y x that somebody saved as they were.
    turned = open_labels(f"{path}#zyx")
    np.testing.assert_array_equal(turned.read(), VALUES.transpose())
    assert fingerprint(f"{path}#zyx") != fingerprint(path)


def test_units_numbers_and_time(tmp_path):
    path = write(tmp_path / "a.nii", unit=MM, zooms=(4e-6, 4e-6, 4e-5))
    assert open_volume(path).attributes["voxel_size_nm"] == [4, 4, 40]
    path = write(tmp_path / "b.nii", unit=UNKNOWN)
    assert "voxel_size_nm" not in open_volume(path).attributes
    path = write(tmp_path / "c.nii", scale=(0.5, 3))
    np.testing.assert_array_equal(open_image(path).read()[..., 0], VALUES * 0.5 + 3)
    with pytest.raises(
        InputError, match="c.nii holds float32; wanted labels of an integer"
    ):
        open_labels(path)
    # Two time points; five axes are x y z t c.
    moving = np.stack([VALUES, VALUES + 1], axis=-1)
    path = write(tmp_path / "d.nii", moving)
    with pytest.raises(InputError, match="with 2 time points; .* as .*d.nii#t=0"):
        open_volume(path)
    np.testing.assert_array_equal(open_labels(f"{path}#t=1").read(), VALUES + 1)
    path = write(tmp_path / "e.nii", moving[:, :, :, None])
    np.testing.assert_array_equal(open_image(path).read(), moving)


def test_what_cannot_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nii")
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    with pytest.raises(InputError, match="a.nii was cut: its header claims data"):
        open_volume(path)
    path.write_bytes(b"no NIfTI" * 100)
    with pytest.raises(InputError, match="a.nii cannot be read as NIfTI"):
        open_volume(path)
    noise = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    packed = write(tmp_path / "b.nii.gz", noise)
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(
        InputError, match="b.nii.gz is damaged: the box .* cannot be read"
    ):
        open_volume(packed).read()
    with pytest.raises(InputError, match="has shape .*; wanted 3 to 5 axes"):
        open_volume(write(tmp_path / "c.nii", VALUES[0]))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(
        InputError, match=r"needs nibabel; pip install 'nisbjax\[nifti\]'"
    ):
        open_volume(path)
