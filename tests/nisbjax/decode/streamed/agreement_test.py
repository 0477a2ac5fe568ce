import numpy as np

from nisbjax.decode.streamed.agreement import agreeing
from nisbjax.decode.streamed.fragments import runs


def pairs(one, other):
    labellings = (np.array(x, np.uint32).reshape(1, 1, -1) for x in (one, other))
    return agreeing(*map(runs, labellings)).T.tolist()


def test_runs_are_the_worked_ones():
    starts, labels = runs(np.array([[[5, 5, 5], [7, 7, 0]]], np.uint32))
    assert starts.tolist() == [0, 3, 5, 6]
    assert labels.tolist() == [5, 7, 0]


def test_fragments_agree_as_the_docstring_says():
    # 1 and 4 share 3 of 4 voxels, 2 and 5 share 2 of 3, 2 and 4 share 1 of 6.
    assert pairs([1, 1, 1, 2, 2, 2], [4, 4, 4, 4, 5, 5]) == [[1, 4], [2, 5]]


def test_half_of_the_united_voxels_is_enough():
    # 1 has 4 voxels, 3 has 2 of them: 2 of 4. Neither 1 of 4 nor 2 of 5 is enough.
    assert pairs([1, 1, 1, 1, 0], [0, 3, 3, 0, 0]) == [[1, 3]]
    assert pairs([1, 1, 1, 1, 0], [0, 3, 0, 0, 0]) == []
    assert pairs([1, 1, 1, 1, 0], [0, 0, 3, 3, 3]) == []


def test_background_agrees_with_nothing():
    assert pairs([0, 0, 0], [1, 1, 1]) == []
    assert pairs([0, 0, 0], [0, 0, 0]) == []


def test_a_fragment_that_is_in_pieces_is_counted_whole():
    # 2 has 4 voxels in two pieces, of which 7 has 3: 3 of 5.
    assert pairs([2, 2, 0, 2, 2, 0], [0, 7, 0, 7, 7, 7]) == [[2, 7]]
