"""Affinities that are no numbers are counted by every decoder and by the sweep."""

import functools
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nisbjax.decode import whole
from nisbjax.decode.nonfinite import Nonfinite
from nisbjax.decode.streamed.labeling import label_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.decode.thresholds.sweep import nodes_by_threshold
from nisbjax.decode.whole import grow_volume, mutex_volume
from nisbjax.store.volume import create_zarr, from_array

SHAPE = (4, 3, 5)


@hypothesis.given(
    st.sampled_from([np.float16, np.float32]),
    st.lists(st.sampled_from([0, 0.5, 1, -1, np.nan, -np.nan, np.inf, -np.inf])),
    st.integers(0, 2**32 - 1),
)
def test_counts_as_numpy_does(dtype, values, seed):
    affinities = np.zeros((3, *SHAPE), dtype)
    at = np.random.default_rng(seed).permutation(affinities.size)[: len(values)]
    affinities.reshape(-1)[at] = values[: affinities.size]
    found = Nonfinite.of(affinities, (10, 20, 30))
    voxels = np.argwhere(~np.isfinite(affinities).all(0))
    assert found.count == np.count_nonzero(~np.isfinite(affinities))
    if found.count:
        assert found.first == tuple(voxels[0] + (10, 20, 30))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_one_alone_is_found(value, dtype):
    affinities = np.ones((3, *SHAPE), dtype)
    affinities[1, 2, 0, 4] = value
    assert Nonfinite.of(affinities) == Nonfinite(1, (2, 0, 4))


def test_a_sum_names_the_first():
    none, one, two = Nonfinite(), Nonfinite(1, (0, 0, 1)), Nonfinite(2, (3, 0, 0))
    assert none + one + two == Nonfinite(3, (0, 0, 1))
    assert none + two == two
    assert Nonfinite.of(np.full((3, *SHAPE), 255, np.uint8)) == none


def _with(decode, parameters):
    return lambda affinities, output, _, **options: decode(
        affinities, output, parameters=parameters, **options
    )


DECODERS = {
    "affinity_cc": functools.partial(
        label_volume, schedule=Schedule(box_shape=(2, 3, 5))
    ),
    "grow": _with(grow_volume, whole.GrowParameters(0.5, 0.4, 1)),
    "mutex": _with(mutex_volume, whole.MutexParameters(0.5, 0.4)),
}


@pytest.mark.parametrize("method", DECODERS)
def test_every_decoder_says_how_many_and_where(method, tmp_path, caplog):
    affinities = np.full((4, *SHAPE), 0.9, np.float16)
    affinities[1, 3, 1, 2] = np.nan
    affinities[2, 3, 2, :2] = np.inf, -np.inf
    output = create_zarr(
        tmp_path / "labels.zarr",
        shape=SHAPE,
        dtype=np.uint32,
        chunks=(2, 3, 5),
        axes="xyz",
    )
    offsets = {"offsets": [[1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0, 0]]}
    file = from_array(affinities, "cxyz", offsets, "theirs.zarr")
    with caplog.at_level("WARNING"):
        counts = DECODERS[method](file, output, 0.5, memory_gb=1.0)
    assert counts.nonfinite == 3
    [said] = caplog.messages
    assert "theirs.zarr: 3 affinities are NaN or infinite" in said
    assert "at voxel (3, 1, 2)" in said
    attributes = json.loads((tmp_path / "labels.zarr/.zattrs").read_text())
    assert attributes["nonfinite_affinities"] == 3
    # Of a finished file the same is known.
    again = DECODERS[method](file, output, 0.5, memory_gb=1.0)
    assert again == counts


def test_the_sweep_says_so_once(caplog):
    affinities = np.full((3, *SHAPE), 0.9, np.float32)
    affinities[0, ::3, 0, 0] = np.nan  # voxels 0 and 3 along x, in both boxes
    nodes = np.zeros((1, 3), int)
    with caplog.at_level("WARNING"):
        nodes_by_threshold(affinities, nodes, (0.5, 0.7), box_shape=(2, 3, 5))
    [said] = caplog.messages
    assert "memory: 2 affinities are NaN or infinite, one of them at voxel (0," in said


def test_nothing_is_said_of_numbers(tmp_path, caplog):
    output = from_array(np.zeros(SHAPE, np.uint32), "xyz")
    affinities = from_array(np.full((3, *SHAPE), 0.9, np.float16), "cxyz")
    with caplog.at_level("WARNING"):
        counts = label_volume(affinities, output, 0.5, memory_gb=1.0)
    assert not caplog.messages
    assert "nonfinite_affinities" not in counts.attributes()
