"""Sums of every plane against numpy, for every type and any chunks."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.qc import statistics
from nisbjax.qc.border import border_planes, find_border
from nisbjax.store.volume import create_zarr, from_array, open_affinities


def check(planes, values):
    """Against the definitions, over finite values in float64."""
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    for c, z in np.ndindex(values.shape[0], values.shape[3]):
        good = values[c, :, :, z][finite[c, :, :, z]]
        assert planes.count[c, z] == good.size
        assert planes.nan[c, z] == np.isnan(values[c, :, :, z]).sum()
        assert planes.inf[c, z] == np.isinf(values[c, :, :, z]).sum()
        if good.size:
            np.testing.assert_allclose(planes.mean[c, z], good.mean(), atol=1e-12)
            np.testing.assert_allclose(planes.std[c, z], good.std(), atol=1e-7)
            assert planes.low[c, z] == np.float32(good.min())
            assert planes.high[c, z] == np.float32(good.max())
        else:
            assert np.isnan(planes.mean[c, z]) and planes.low[c, z] == np.inf


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 9)] * 3))
def test_halves_are_summed_by_their_bits(seed, shape):
    # All 65536 patterns may come: subnormals, both zeros, infinities and NaNs.
    bits = np.random.default_rng(seed).integers(0, 1 << 16, (2, *shape), np.uint16)
    values = bits.view(np.float16)
    small = np.abs(values.astype(np.float32)) < 8  # so that float64 sums are exact
    values = np.where(small | ~np.isfinite(values), values, np.float16(0.5))
    part = statistics.measure(values, (0, 0, 0), None, shape)
    check(part.planes, values)


def test_every_half_is_decoded_exactly():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    planes = statistics.measure(
        every.reshape(1, 1, 1, -1), (0, 0, 0), None, (1, 1, 1 << 16)
    ).planes
    finite = np.isfinite(every)
    np.testing.assert_array_equal(planes.total[0][finite], every[finite])
    np.testing.assert_array_equal(planes.low[0][finite], every[finite])
    np.testing.assert_array_equal(planes.high[0][finite], every[finite])
    assert planes.nan.sum() == np.isnan(every).sum() == 2046
    assert planes.inf.sum() == 2


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("chunks", [(1, 4, 5, 3), (3, 7, 9, 11), (2, 3, 9, 2)])
def test_a_scan_reads_any_file_in_any_chunks(tmp_path, monkeypatch, dtype, chunks):
    monkeypatch.setattr(statistics, "_UNIT_VALUES", 100)  # several units
    draw = np.random.default_rng(1)
    values = draw.random((3, 7, 9, 11)).astype(np.float32)
    if dtype == "uint8":
        stored = np.rint(values * 255).astype(np.uint8)
        values = stored.astype(np.float32) / 255
    else:
        values[1, 2, 3, 4], values[0, 0, 0, 4] = np.nan, -np.inf
        values[2, :, :, 7] = np.nan
        stored = values = values.astype(dtype)
    volume = create_zarr(
        tmp_path / "a.zarr", shape=values.shape, dtype=dtype, chunks=chunks, axes="cxyz"
    )
    volume.write(..., stored)
    check(statistics.scan(volume).planes, values)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("main", data=stored, chunks=chunks, compression="gzip")
    check(statistics.scan(open_affinities(tmp_path / "raw.h5")).planes, values)


def test_sums_do_not_depend_on_chunks_or_threads(tmp_path):
    values = np.random.default_rng(2).random((1, 16, 16, 8)).astype(np.float16)
    totals = [
        statistics.scan(from_array(values, "cxyz"), threads=1).planes.total,
        statistics.measure(values, (0, 0, 0), None, (16, 16, 8)).planes.total,
    ]
    np.testing.assert_array_equal(*totals)


def test_border_planes_keep_a_margin():
    # Z = 2250: margin 45; linspace(45, 2204, 8) truncated.
    assert border_planes(2250, 8) == (
        45,
        353,
        661,
        970,
        1278,
        1587,
        1895,
        2204,
    )
    assert border_planes(3, 8) == (1,)
    assert border_planes(1, 8) == (0,)
    assert border_planes(2, 8) == (0, 1)


def test_border_samples_are_affinities_on_background(tmp_path):
    draw = np.random.default_rng(3)
    image = draw.integers(0, 60, (11, 9, 6, 1), np.uint8)
    values = draw.random((2, 11, 9, 6)).astype(np.float16)
    border = find_border(from_array(image, "xyzc"), n_z_border=2, width=2, thresh=30.0)
    assert border.z == (1, 4)
    volume = create_zarr(
        tmp_path / "a.zarr",
        shape=values.shape,
        dtype="float16",
        chunks=(1, 4, 4, 4),
        axes="cxyz",
    )
    volume.write(..., values)
    found = statistics.scan(volume, border)
    for row, z in enumerate(border.z):
        ring, inside = [[], []], [0.0, 0.0]
        count = 0
        for x, y in np.ndindex(11, 9):
            if image[x, y, z, 0] > 30:
                continue
            outer = x < 2 or x >= 9 or y < 2 or y >= 7
            count += not outer
            for c in range(2):
                if outer:
                    ring[c].append(values[c, x, y, z])
                else:
                    inside[c] += float(values[c, x, y, z])
        for c in range(2):
            table = found.samples.ring[row][c].settle()
            got = np.repeat(table.values, table.counts)
            np.testing.assert_array_equal(got, np.sort(np.float32(ring[c])))
            np.testing.assert_allclose(found.samples.inside_total[row, c], inside[c])
            assert found.samples.inside_count[row, c] == count


def test_a_border_of_another_volume_is_refused():
    border = find_border(
        from_array(np.zeros((4, 4, 4, 1), np.uint8), "xyzc"),
        n_z_border=1,
        width=1,
        thresh=1.0,
    )
    values = np.zeros((3, 4, 4, 5), np.float16)
    with pytest.raises(InputError, match=r"image \(4, 4, 4\) does not match .*4, 4, 5"):
        statistics.scan(from_array(values, "cxyz"), border)
