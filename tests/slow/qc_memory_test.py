"""Memory of the QC scan and of writing its mask, over volumes that are long in x or in z."""

import os
import sys
import zlib

import numpy as np
import pytest

pytestmark = pytest.mark.slow

# 0.8 to 3.2 GB of 16-bit affinities for the scan; 0.4 to 1.6 GB of mask. Shorter volumes measure
# what Python, TensorStore and HDF5 take until they have settled, some 4 MB.
LENGTHS = (8192, 16384, 32768)
# The scan keeps its sums for each plane of z; written out, what they take.
PLANE_BYTES = 400
WIDTH = {"scan": 128, "mask": 224}
CHUNK = (1, 64, 64, 64)


def prediction(folder, form, shape):
    """A file of chunks that are all alike: noise, but for the length that is tested."""
    import h5py

    from nisbjax.store.volume import create_zarr

    # 8 KB again and again: deflate looks back 32 KB, so the files stay small.
    noise = np.random.default_rng(0).random((1, *CHUNK[2:])).astype(np.float16)
    chunk = np.tile(noise, (64, 1, 1))
    if form == "zarr":
        path = os.path.join(folder, "raw.zarr")
        create_zarr(
            path, shape=(3, *shape), dtype="float16", chunks=CHUNK, axes="cxyz",
            compressor={"id": "zlib", "level": 1},
        )  # fmt: skip
        data = zlib.compress(chunk.tobytes(), 1)
        for index in np.ndindex(3, *(-(-s // 64) for s in shape)):
            with open(os.path.join(path, ".".join(map(str, index))), "wb") as file:
                file.write(data)
        return path
    path = os.path.join(folder, "raw.h5")
    data = zlib.compress(chunk.tobytes(), 4)
    with h5py.File(path, "w") as file:
        main = file.create_dataset(
            "main", shape=(3, *shape), dtype=np.float16, chunks=CHUNK,
            compression="gzip", compression_opts=4,
        )  # fmt: skip
        for index in np.ndindex(3, *(-(-s // 64) for s in shape)):
            start = tuple(i * c for i, c in zip(index, CHUNK, strict=True))
            main.id.write_direct_chunk(start, data)
    return path


def dark_image(shape):
    """All background, so that every voxel of the ring counts; computed as it is read."""
    import tensorstore as ts

    from nisbjax.store.volume import Volume

    def read(_, chunk, __):
        chunk[...] = 7

    store = ts.virtual_chunked(
        read,
        dtype=ts.uint8,
        shape=[*shape, 1],
        chunk_layout=ts.ChunkLayout(chunk_shape=[64, 64, 64, 1]),
    )
    return Volume(store, "xyzc", source="dark")


def measure(what, form, axis, length, folder):
    """Runs in a process of its own; prints what it needed beyond its start [bytes]."""
    from peak_memory import peak_bytes

    from nisbjax.artifacts import VolumeDir
    from nisbjax.config import base_config
    from nisbjax.mask import MaskSpec
    from nisbjax.modes.quality import paths
    from nisbjax.qc import mask_file as mask
    from nisbjax.qc import stage

    shape = [WIDTH[what]] * 3
    shape[axis] = length
    image = dark_image(tuple(shape))
    if what == "mask":
        spec = MaskSpec(tuple(shape), 30, shape[2] - 30, 32, 30.0)
        mask.build(image, spec, os.path.join(folder, "affinity_mask.h5"))
    else:
        stage.open_image = lambda _: image
        path = os.path.join(folder, f"raw.{form}")
        config = base_config()
        place = paths(VolumeDir(stage.pathlib.Path(folder)))
        stage.check(config.qc, place, prediction=path, image="dark", memory_gb=4.0)
    print(peak_bytes())


def slope(measured, what, form, axis, folder):
    peaks = []
    for length in LENGTHS:
        place = folder / str(length)
        place.mkdir()
        shape = [WIDTH[what]] * 3
        shape[axis] = length
        if what == "scan":
            prediction(place, form, tuple(shape))
        arguments = [__file__, what, form, str(axis), str(length), str(place)]
        peaks.append(int(measured(arguments)))
        for file in place.rglob("raw*"):
            if file.is_file():
                file.unlink()
    voxels = [WIDTH[what] ** 2 * length for length in LENGTHS]
    found = np.polyfit(voxels, peaks, 1)[0]
    print(
        f"{what} {form} along axis {axis}: {[p >> 20 for p in peaks]} MiB, "
        f"{found:.4f} B/voxel"
    )
    return peaks, found


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "axis, form",
    [(0, "h5"), (2, "zarr")]
    + [pytest.param(a, f, marks=LONG) for a, f in [(0, "zarr"), (2, "h5")]],
)
def test_the_scans_memory_does_not_grow_with_the_volume(axis, form, measured, tmp_path):
    peaks, found = slope(measured, "scan", form, axis, tmp_path)
    assert max(peaks) < 0.5e9
    sums = PLANE_BYTES / WIDTH["scan"] ** 2 if axis == 2 else 0
    assert found < 0.02 + sums  # of 6 B in each voxel


@pytest.mark.parametrize("axis", [0, pytest.param(2, marks=LONG)])
def test_the_masks_memory_does_not_grow_with_the_volume(axis, measured, tmp_path):
    peaks, found = slope(measured, "mask", "h5", axis, tmp_path)
    assert max(peaks) < 0.5e9
    assert found < 0.02  # of 1 B in each voxel


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
