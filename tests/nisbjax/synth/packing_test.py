"""Lines that overlap move apart, those that do not stay."""

import numpy as np

from nisbjax.synth import packing

LOW, HIGH = np.zeros(3), np.full(3, 400.0)


def lines(*x, neurites):
    n = len(x)
    return packing.Lines(
        position=np.array([[v, 200.0, 200.0] for v in x]),
        radius=np.full(n, 40.0),
        axis=np.tile([0.0, 0.0, 1.0], (n, 1)),
        flatness=np.zeros(n),
        parent=np.full(n, -1),
        neurite=np.array(neurites),
    )


def test_two_neurites_that_overlap_are_pushed_apart_alike():
    made = lines(180.0, 220.0, neurites=[1, 2])
    clearance = packing.pack(made, LOW, HIGH, 36.0, 20)
    x = made.position[:, 0]
    assert x[1] - x[0] > 55
    np.testing.assert_allclose(x.sum(), 400, atol=1e-6)
    assert np.isfinite(clearance).all()


def test_samples_of_one_neurite_and_distant_ones_stay():
    for made in (
        lines(180.0, 220.0, neurites=[1, 1]),
        lines(50.0, 350.0, neurites=[1, 2]),
    ):
        before = made.position.copy()
        clearance = packing.pack(made, LOW, HIGH, 36.0, 3)
        np.testing.assert_array_equal(made.position, before)
        assert np.isinf(clearance).all()


def test_pieces_are_numbered_from_their_roots():
    # 0 - 1 - 2 - 3 without sample 1: the pieces 0, and 2 with 3.
    parent = np.array([-1, 0, 1, 2])
    usable = np.array([True, False, True, True])
    assert packing.number_pieces(parent, usable).tolist() == [0, -1, 1, 1]
