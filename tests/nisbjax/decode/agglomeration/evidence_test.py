"""Codes of affinities by hand: the logit in units of 2^-20, and the bin."""

import math

import numpy as np
import pytest

from nisbjax.decode.agglomeration.evidence import NOTHING, UNIT, codes, fixed
from nisbjax.errors import InputError


def read(affinities):
    """Logits in units and bins of a row of affinities, as the kernels read them."""
    values, table = codes(affinities.reshape(-1, 1, 1, 1))
    found = (table[values] if len(table) else values).reshape(-1)
    return (found >> 8).tolist(), (found & 255).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_logit_and_bin(dtype):
    # logit(.5) = 0, logit(.75) = log 3; .0001 and 1 are clipped to log(.001 / .999) and its
    # opposite. Bins: 256 x .5 = 128, x .75 = 192, x .0001 = .03, and 1 is in the last one.
    logits, bins = read(np.array([0.5, 0.75, 1e-4, 1], dtype))
    end = round(math.log(999) * UNIT)
    assert logits == [0, round(math.log(3) * UNIT), -end, end]
    assert bins == [128, 192, 0, 255]


def test_uint8_means_value_over_255():
    logits, bins = read(np.array([0, 51, 255], np.uint8))
    # 51 / 255 = .2: the logit is -log 4, the bin 51.2.
    assert logits[1] == -round(math.log(4) * UNIT)
    assert logits[2] == -logits[0] == round(math.log(999) * UNIT)
    assert bins == [0, 51, 255]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_nan_says_nothing(dtype):
    values, table = codes(np.full((1, 1, 1, 1), np.nan, dtype))
    assert (table[values] if len(table) else values).item() == NOTHING


def test_a_logit_is_rounded_as_its_sums():
    assert fixed(0.5) == 524288
    assert fixed(-1e-6) == -1


def test_another_type_is_refused():
    with pytest.raises(InputError, match="affinities are float64; wanted float16"):
        codes(np.zeros((3, 1, 1, 1)))
