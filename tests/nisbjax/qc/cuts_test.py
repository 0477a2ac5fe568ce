"""Cuts along z by hand, and against the reference's search written out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.qc.cuts import find_cuts
from nisbjax.qc.statistics import PlaneSums


def planes_of(means):
    """Sums whose plane means are these; a plane of one voxel."""
    means = np.asarray(means, np.float64)
    planes = PlaneSums.empty(*means.shape)
    planes.count[:] = np.isfinite(means)
    planes.total[:] = np.where(np.isfinite(means), means, 0)
    return planes


def test_a_case_by_hand():
    # 100 planes, two channels at 0.6; every 10th is sampled: 10 planes, so all count
    # (<= 41). Bad are 0-4 and 97-99 in channel 0 (0.1), and 50-51 in channel 1 (0.5).
    # Sampled are 0 (bad), 10 ... 90, and 50: interior means are
    # (9 x 0.6 + 0.1) / 10 = 0.55 and (9 x 0.6 + 0.5) / 10 = 0.59; cutoffs 0.50 and 0.54.
    means = np.full((2, 100), 0.6)
    means[0, :5] = means[0, 97:] = 0.1
    means[1, 50:52] = 0.5
    cuts = find_cuts(planes_of(means))
    np.testing.assert_allclose(cuts.interior_mean, (0.55, 0.59))
    np.testing.assert_allclose(cuts.cutoff, (0.50, 0.54))
    assert (cuts.low_z, cuts.high_z) == (5, 97)
    assert (cuts.reference_low_z, cuts.reference_high_z) == (5, 97)
    assert not cuts.saturated_low and not cuts.saturated_high
    assert cuts.bad_inside == (50, 51)
    assert cuts.sampled == tuple(range(0, 100, 10))


def test_long_range_channels_do_not_count():
    # Their last ten planes point out of the volume.
    means = np.full((6, 60), 0.6)
    means[5, 50:] = 0.1
    means[2, :2] = 0.1
    cuts = find_cuts(planes_of(means))
    assert (cuts.low_z, cuts.high_z) == (2, 60)
    assert len(cuts.cutoff) == 6


def test_the_reference_asks_every_channel():
    # Channel 3 is 0 in plane 0 of four, 0.6 elsewhere: every plane is sampled, the
    # interior's mean is 0.45, the cutoff 0.4. PyTC cuts 1 to 4; channels 0-2 keep all.
    means = np.full((4, 4), 0.6)
    means[3, 0] = 0
    cuts = find_cuts(planes_of(means), z_stride=1)
    assert (cuts.reference_low_z, cuts.reference_high_z) == (1, 4)
    assert (cuts.low_z, cuts.high_z) == (0, 4)


def test_ends_are_left_out_of_the_interior_of_a_deep_volume():
    # 430 planes: 43 samples > 41, so samples 20 to 22 (z = 200, 210, 220) are interior.
    means = np.full((1, 430), 0.2)
    means[0, 200:230] = 0.8
    cuts = find_cuts(planes_of(means))
    np.testing.assert_allclose(cuts.interior_mean, 0.8)
    # 410 planes: 41 samples, all count: z = 200, 210, 220 of 41.
    cuts = find_cuts(planes_of(means[:, :410]))
    np.testing.assert_allclose(cuts.interior_mean, (38 * 0.2 + 3 * 0.8) / 41)


def test_a_saturated_search_goes_on_and_says_so():
    # Planes 0-39 of 200 are bad: the reference's 30 planes hold no good one. At the other
    # end 160-199 are bad: none of 170-199 passes, the reference stops at 170.
    means = np.full((3, 200), 0.6)
    means[:, :40] = means[2, 160:] = 0.0
    cuts = find_cuts(planes_of(means), k_edge=5)
    assert (cuts.low_z, cuts.high_z) == (40, 160)
    assert (cuts.reference_low_z, cuts.reference_high_z) == (30, 170)
    assert cuts.saturated_low and cuts.saturated_high
    stays = find_cuts(planes_of(means), k_edge=5, auto_extend=False)
    assert (stays.low_z, stays.high_z) == (30, 170)
    assert stays.bad_inside == (*range(30, 40), *range(160, 170))


def test_a_tiny_volume_and_one_without_a_good_plane():
    assert find_cuts(planes_of([[0.5]])).high_z == 1
    # Each plane fails in one channel: interior 0.3, cutoff 0.25, and 0.0 everywhere once.
    cuts = find_cuts(planes_of([[0.6, 0.0], [0.0, 0.6]]), z_stride=1)
    assert (cuts.low_z, cuts.high_z) == (0, 0) and not cuts.usable
    stays = find_cuts(
        planes_of([[0.6, 0.0], [0.0, 0.6]]), z_stride=1, auto_extend=False
    )
    # The windows of 30 planes end with the volume: 2 from below, 0 from above.
    assert (stays.low_z, stays.high_z) == (2, 0)
    assert (stays.reference_low_z, stays.reference_high_z) == (2, 0)


def test_planes_without_finite_values_do_not_pass_or_count():
    means = np.full((1, 50), 0.6)
    means[0, 0] = np.nan
    cuts = find_cuts(planes_of(means))
    np.testing.assert_allclose(cuts.interior_mean, 0.6)
    assert (cuts.low_z, cuts.high_z) == (1, 50)


@given(st.integers(0, 2**32 - 1), st.integers(61, 120), st.integers(1, 12))
def test_the_references_search(seed, depth, stride):
    draw = np.random.default_rng(seed)
    means = np.where(draw.random((2, depth)) < 0.4, 0.3, 0.6)
    cuts = find_cuts(planes_of(means), z_stride=stride, k_edge=2)
    sampled = means[:, ::stride]
    kept = sampled[:, 2:-2] if sampled.shape[1] > 5 else sampled
    cutoff = kept.mean(1) - 0.05
    low, high = 30, depth - 30
    for z in reversed(range(30)):
        low = z if all(means[:, z] >= cutoff) else low
    for z in range(depth - 30, depth):
        high = z + 1 if all(means[:, z] >= cutoff) else high
    assert (cuts.reference_low_z, cuts.reference_high_z) == (low, high)
