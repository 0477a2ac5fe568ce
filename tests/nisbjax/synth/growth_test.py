"""Walks begin and end in their block, one step at a time."""

import numpy as np

from nisbjax.synth import growth

MORPHOLOGY = growth.Morphology(50.0, 0.3, 0.2, (36.0, 90.0), 500.0, 400.0, 0.5, 0.1)
LOW, HIGH = np.zeros(3), np.full(3, 600.0)


def grown(seed):
    return growth.grow(np.random.default_rng(seed), 3, LOW, HIGH, MORPHOLOGY)


def test_samples_are_a_step_from_the_one_before():
    samples = grown(0)
    rows = np.flatnonzero(samples.parent >= 0)
    steps = samples.position[rows] - samples.position[samples.parent[rows]]
    lengths = np.linalg.norm(steps, axis=1)
    np.testing.assert_allclose(lengths, growth.STEP_NM, rtol=1e-6)
    assert (samples.parent[rows] < rows).all()
    np.testing.assert_allclose(np.linalg.norm(samples.axis, axis=1), 1, atol=1e-6)
    assert samples.radius.min() >= 36 and samples.radius.max() <= 90
    assert set(samples.neurite) == {0, 1, 2}


def test_equal_generators_grow_equal_neurites():
    np.testing.assert_array_equal(grown(1).position, grown(1).position)
    assert not np.array_equal(grown(1).position[:3], grown(2).position[:3])


def test_batches_are_counted_on():
    one, other = grown(1), grown(2)
    both = growth.join([one, other])
    n, m = len(one.radius), len(other.radius)
    assert len(both.radius) == n + m
    assert set(both.neurite[n:]) == {3, 4, 5}
    roots = other.parent < 0
    assert (both.parent[n:][roots] == -1).all()
    np.testing.assert_array_equal(both.parent[n:][~roots], other.parent[~roots] + n)
