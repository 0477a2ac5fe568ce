"""An id keeps its colour; segments have the truth's where they overlap, and else their own."""

import numpy as np

from nisbjax.viz.colours import label_colours, matched_colours


def test_an_id_has_one_colour_everywhere():
    ids = np.arange(400).reshape(20, 20)
    colours = label_colours(ids)
    assert colours.dtype == np.uint8 and colours.shape == (20, 20, 3)
    assert colours[0, 0].tolist() == [0, 0, 0]
    assert colours.reshape(-1, 3)[1:].min() >= 55  # never so dark as the background
    assert len({tuple(c) for c in colours.reshape(-1, 3)}) == 400
    shuffled = np.random.default_rng(0).permutation(ids.ravel()).reshape(20, 20)
    flat = colours.reshape(-1, 3)
    np.testing.assert_array_equal(label_colours(shuffled), flat[shuffled])
    large = np.array([[2**40 + 1, 2**40 + 2]])
    assert (label_colours(large)[0, 0] != label_colours(large)[0, 1]).any()


def test_a_segment_takes_the_colour_of_the_object_that_it_shares_most_with():
    """Segments 1 to 4 and objects; 1 shares 3 voxels with 8, 2 one; 3 has 9 and 4 nothing."""
    truth = np.array([[8, 8, 8, 8, 9, 9, 0, -1]])
    found = np.array([[1, 1, 1, 2, 3, 3, 4, 0]])
    (colours,) = matched_colours([found], [truth])
    of = label_colours(truth)
    np.testing.assert_array_equal(colours[0, :3], of[0, :3])
    np.testing.assert_array_equal(colours[0, 4:6], of[0, 4:6])
    assert colours[0, 7].tolist() == [0, 0, 0]
    for own in (
        colours[0, 3],
        colours[0, 6],
    ):  # the split one, and the one in background
        gaps = np.linalg.norm(own.astype(float) - of[0, [0, 4, 7]], axis=1)
        assert gaps.min() >= 60 and own.min() >= 55


def test_a_segment_over_two_objects_has_the_larger_ones_colour_in_every_plane():
    """2 voxels of 8 in one plane, 3 of 9 in the other."""
    truth = [np.array([[8, 8]]), np.array([[9, 9, 9]])]
    found = [np.full((1, 2), 5), np.full((1, 3), 5)]
    first, second = matched_colours(found, truth)
    nine = label_colours(np.array(9)).tolist()
    assert first[0, 0].tolist() == second[0, 0].tolist() == nine


def test_ids_alike_are_not_taken_for_the_same():
    """Segment 8 lies in object 3, and object 8 has no segment."""
    truth, found = np.array([[3, 3, 8]]), np.array([[8, 8, 0]])
    (colours,) = matched_colours([found], [truth])
    assert colours[0, 0].tolist() == label_colours(np.array(3)).tolist()
    (alone,) = matched_colours([np.array([[8]])], [np.array([[0]])])
    assert alone.tolist() == label_colours(np.array([[8]])).tolist()
