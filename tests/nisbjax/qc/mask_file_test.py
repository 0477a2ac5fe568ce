"""The mask file against an array filled by the definition."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.mask import MaskSpec, open_mask, open_mask_for
from nisbjax.qc import mask_file as mask
from nisbjax.qc.front_matter import FrontMatter
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import create_zarr, from_array, open_labels


def brute(image, spec):
    kept = np.ones(spec.shape, np.uint8)
    for x, y, z in np.ndindex(*spec.shape):
        ring = (
            min(x, y) < spec.border_width
            or x >= spec.shape[0] - spec.border_width
            or y >= spec.shape[1] - spec.border_width
        )
        outside = z < spec.low_z or z >= spec.high_z
        if outside or (ring and image[x, y, z, 0] <= spec.bg_thresh):
            kept[x, y, z] = 0
    return kept


def draw(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 4, (*shape, 1), np.uint8)


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 5),
    st.sampled_from([0.0, 1.5, 255.0]),
)
def test_the_file_is_the_definition(tmp_path_factory, shape, low, high, width, thresh):
    low, high = sorted((min(low, shape[2]), min(high, shape[2])))
    spec = MaskSpec(shape, low, high, width, thresh)
    image = draw(shape, seed=low)
    path = tmp_path_factory.mktemp("mask") / "affinity_mask.h5"
    kept = mask.build(from_array(image, "xyzc"), spec, path)
    want = brute(image, spec)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["main"][:], want)
    assert kept == want.sum()


def test_chunks_that_are_alike_are_right_too(tmp_path, monkeypatch):
    monkeypatch.setattr(mask, "_CHUNK", 4)  # 4 x 4 x 3 chunks: all kept, none, some
    image = draw((15, 13, 11))
    spec = MaskSpec((15, 13, 11), 4, 9, 3, 1.0)
    mask.build(from_array(image, "xyzc"), spec, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        main = file["main"]
        np.testing.assert_array_equal(main[:], brute(image, spec))
        assert main.dtype == np.uint8 and main.chunks == (4, 4, 4)
        assert main.compression == "gzip" and main.compression_opts == 4


def zarr_image(path, values):
    volume = create_zarr(
        path, shape=values.shape, dtype="uint8", chunks=(8, 8, 8, 1), axes="xyzc"
    )
    volume.write(..., values)
    return volume


def test_a_hand_case_and_its_attributes(tmp_path):
    # 4 x 3 x 2 voxels, ring of width 1: only (1, 1) and (2, 1) lie inside it. Threshold 0:
    # the black voxel (0, 0, 1) goes, intensity 1 stays. low_z 1: all of z = 0 goes.
    values = np.ones((4, 3, 2, 1), np.uint8)
    values[0, 0, 1] = values[1, 1, 1] = 0
    image = zarr_image(tmp_path / "data" / "img", values)
    spec = MaskSpec((4, 3, 2), 1, 2, 1, 0.0)
    path = tmp_path / "run" / "affinity_mask.h5"
    assert mask.build(image, spec, path) == 11
    with h5py.File(path) as file:
        kept, attributes = file["main"][:], dict(file["main"].attrs)
    assert not kept[:, :, 0].any() and kept[1, 1, 1] and not kept[0, 0, 1]
    assert attributes["axis_order"] == "XYZ"
    assert (attributes["low_z"], attributes["high_z"]) == (1, 2)
    assert (attributes["bg_thresh"], attributes["border_width"]) == (0, 1)
    # PyTC opens `source_image` from wherever it is started.
    assert attributes["source_image"] == str(tmp_path / "data" / "img")
    assert attributes["source_image_relative"] == "../data/img"
    assert attributes["source_fingerprint"] == fingerprint(tmp_path / "data" / "img")

    # The decoder takes the specification, also where both have moved together.
    (tmp_path / "elsewhere").mkdir()
    for name in ("data", "run"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    again, pixels = open_mask(tmp_path / "elsewhere" / "run" / "affinity_mask.h5")
    assert again == spec
    box = Box.whole((4, 3, 2))
    np.testing.assert_array_equal(
        again.mask_of(box, pixels.read(box)[..., 0]), kept == 1
    )


def test_the_mask_of_a_part_of_an_image(tmp_path):
    """Voxels 1-3 of x and planes 1-2 of 4 x 3 x 3, of whose ring x = 3 alone is in it."""
    values = np.ones((4, 3, 3, 1), np.uint8)
    values[1, 1, 1] = values[3, 0, 2] = 0
    image = zarr_image(tmp_path / "img", values)
    report = tmp_path / "report.md"
    front = FrontMatter(image.source, "mask.h5", 0, 2, 0.0, 1, "1:4,0:3,1:3", "4,3,3")
    report.write_text("\n".join([*front.lines(), ""]))
    path = mask.from_report(report)
    kept = open_labels(path).read() == 1
    # (1, 1) of plane 1 is dark inside the ring, (3, 0) of plane 2 in it.
    expected = np.ones((3, 3, 2), bool)
    expected[2, 0, 1] = False
    np.testing.assert_array_equal(kept, expected)
    spec, pixels = open_mask(path)
    assert (spec.start, spec.volume) == ((1, 0, 1), (4, 3, 3))
    box = Box.whole((3, 3, 2))
    np.testing.assert_array_equal(spec.mask_of(box, pixels.read(box)[..., 0]), kept)
    # An image of the part alone serves too.
    part = zarr_image(tmp_path / "part", values[1:, :, 1:])
    again = mask.from_report(report, image_path=part.source, out=str(tmp_path / "b.h5"))
    np.testing.assert_array_equal(open_labels(again).read(), kept)
    # What is of this part is not of another of the same shape.
    said = {"box": "0:3,0:3,1:3", "volume_shape": [4, 3, 3]}
    other = from_array(np.zeros((3, 3, 3, 2), np.float16), "cxyz", said)
    with pytest.raises(
        InputError,
        match="is of 1:4,0:3,1:3 of its volume, and .* covers 0:3,0:3,1:3; rer",
    ):
        open_mask_for(path, other)


REPORT = """---
img: {img}
out: {out}
low_z: 1
high_z: 5
bg_thresh: 1
border_width: 2
---
"""


def test_a_report_becomes_its_mask(tmp_path):
    values = draw((9, 8, 6))
    zarr_image(tmp_path / "img", values)
    report = tmp_path / "report.md"
    report.write_text(REPORT.format(img="img", out="masks/m.h5"))
    path = mask.from_report(report)
    assert path == tmp_path / "masks" / "m.h5"
    with h5py.File(path) as file:
        want = brute(values, MaskSpec((9, 8, 6), 1, 5, 2, 1.0))
        np.testing.assert_array_equal(file["main"][:], want)
    named = mask.from_report(
        report, image_path=str(tmp_path / "img"), out=str(tmp_path / "n.h5")
    )
    assert named.read_bytes()


@pytest.mark.parametrize(
    "img, out, text",
    [
        ("", "m.h5", "names no image; name it with --config.qc.image"),
        ("nowhere", "m.h5", "no volume at .*nowhere"),
        ("ftp://host/img", "m.h5", "ftp://host/img is none of the addresses"),
        ("img", "gs://bucket/m.h5", "gs://bucket/m.h5 is not a local path"),
        ("img", "m.npy", "was to go to .*m.npy; wanted a name that ends in .h5"),
        (
            "img",
            "raw.h5",
            "raw.h5 is there and is no affinity mask; remove it, or name another",
        ),
        ("img", "folder.h5", "folder.h5 is a folder; name a file to write to"),
        ("img", "pipe.h5", "pipe.h5 is a device, pipe or socket; name a file"),
        ("shallow", "m.h5", "mask keeps z from 1 to 5; wanted .* <= 4"),
    ],
)
def test_reports_that_cannot_be_used_are_refused(tmp_path, img, out, text):
    zarr_image(tmp_path / "img", draw((9, 8, 6)))
    zarr_image(tmp_path / "shallow", draw((9, 8, 4)))
    (tmp_path / "folder.h5").mkdir()
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["main"] = np.zeros((3, 2, 2, 2), np.float16)
    before = (tmp_path / "raw.h5").read_bytes()
    (tmp_path / "report.md").write_text(REPORT.format(img=img, out=out))
    with pytest.raises(InputError, match=text):
        mask.from_report(tmp_path / "report.md")
    assert (tmp_path / "raw.h5").read_bytes() == before
    assert not (tmp_path / "m.h5").exists()


def test_an_image_of_another_shape_is_refused(tmp_path):
    image = from_array(draw((4, 4, 4)), "xyzc")
    with pytest.raises(InputError, match=r"\(4, 4, 4\) does not match the mask's"):
        mask.build(image, MaskSpec((4, 4, 5), 0, 1, 1, 1.0), tmp_path / "m.h5")


_BUILD = """
import sys
from nisbjax.qc import mask_file

map_boxes = mask_file.map_boxes
def waiting(*arguments, **options):
    print("inside", flush=True)  # of the lock, with the file begun
    sys.stdin.readline()
    return map_boxes(*arguments, **options)
mask_file.map_boxes = waiting
mask_file.from_report(sys.argv[1])
"""


def test_two_processes_at_one_mask(tmp_path):
    """The one that came first is held in the middle; the other leaves it alone."""
    values = draw((9, 8, 6))
    zarr_image(tmp_path / "img", values)
    report = tmp_path / "report.md"
    report.write_text(REPORT.format(img="img", out="masks/m.h5"))
    with subprocess.Popen(
        [sys.executable, "-c", _BUILD, str(report)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout.readline() == "inside\n"
        before = sorted(os.listdir(tmp_path / "masks"))
        with pytest.raises(
            InputError, match=f"m.h5 is being written by process {first.pid} on "
        ):
            mask.from_report(report)
        assert sorted(os.listdir(tmp_path / "masks")) == before
        assert "m.h5" not in before
        first.communicate("go on\n")
    assert first.returncode == 0
    assert os.listdir(tmp_path / "masks") == ["m.h5"]
    with h5py.File(tmp_path / "masks" / "m.h5") as file:
        want = brute(values, MaskSpec((9, 8, 6), 1, 5, 2, 1.0))
        np.testing.assert_array_equal(file["main"][:], want)
    written = (tmp_path / "masks" / "m.h5").read_bytes()
    mask.from_report(report)  # now it may
    assert (tmp_path / "masks" / "m.h5").read_bytes() == written
