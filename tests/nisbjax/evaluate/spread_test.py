"""The spread of a NERL, worked by hand."""

import numpy as np
import pytest

from nisbjax.evaluate import spread


def test_two_skeletons_by_hand():
    """30 nm kept whole, 10 nm cut in halves: the example of the docstring.

    Resampled, one draw in four has the first alone (NERL 1), one the second alone (.5),
    two have both (.95): mean .85, variance (.0225 + .1225 + 2 * .01) / 4 = .04125.
    """
    found = spread.spread(np.array([900.0, 50.0]), np.array([900.0, 100.0]))
    assert found["nerl_mean"] == (1 + 0.5) / 2
    assert found["nerl_share"] == 0.9
    assert found["nerl_sd"] == pytest.approx(np.sqrt(0.04125), abs=0.02)  # 200 draws


def test_what_has_no_length_counts_in_no_mean():
    found = spread.spread(np.array([0.0, 100.0]), np.array([0.0, 400.0]))
    assert found == {"nerl_mean": 0.25, "nerl_sd": 0.0, "nerl_share": 1.0}


def test_the_deviation_is_the_same_each_time_and_zero_among_equals():
    kept, own = np.array([1.0, 4.0, 2.0]), np.array([4.0, 4.0, 9.0])
    assert spread.spread(kept, own) == spread.spread(kept, own)
    assert spread.spread(own / 2, own)["nerl_sd"] == 0


@pytest.mark.parametrize(("share", "said"), [(1 / 3, ""), (0.57, "57 % of the weight")])
def test_a_skeleton_that_carries_all_is_named(share, said):
    assert said in spread.note(share) and bool(said) == bool(spread.note(share))
