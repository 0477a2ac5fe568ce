"""Where nodes lie among labels, counted by hand."""

import numpy as np

from nisbjax.evaluate.placement import placement, turned
from nisbjax.skeletons import Skeletons
from nisbjax.store.volume import from_array

# Along x: neurite 7, background, neurite 8, nobody knows.
LABELS = np.array([7, 7, 7, 7, 0, 8, 8, -1], np.int32).reshape(8, 1, 1)


def skeletons(ids, x):
    index = np.array([(each, 0, 0) for each in x])
    edges = np.zeros((0, 2), np.int64)
    return Skeletons(np.array(ids), index, index * 9.0, edges, "s.pkl")


def look(ids, x, unlabeled="default"):
    return placement(skeletons(ids, x), from_array(LABELS, "xyz"), unlabeled)


def test_shares_of_nodes():
    # Skeleton 7: labels 7 7 0 8, of which two are on its main label; skeleton 1: 8 8; the
    # last node is where nobody knows. Together 4 of 6, on background 1, its own number 2.
    found = look([7, 7, 7, 7, 1, 1, 1], [0, 1, 4, 5, 5, 6, 7])
    assert found is not None
    assert (found.looked_at, found.nodes, found.skeletons) == (6, 7, 2)
    assert (found.together, found.background) == (4 / 6, 1 / 6)
    assert (found.same_id, found.fits) == (2 / 6, False)
    assert str(found) == (
        "6 of 7 nodes of 2 skeletons: 67% on the label of most of their skeleton, 17% on "
        "background, 33% on the label of their own number"
    )


def test_nothing_to_look_at():
    assert look([7], [7]) is None
    assert look([7], [0], unlabeled="7") is None


def test_at_most_2000_nodes_from_first_to_last():
    found = look([7] * 3000 + [8] * 3000, [0] * 3000 + [5] * 3000)
    assert found is not None and found.looked_at == 2000
    assert found.fits and found.skeletons == 2


def test_turned():
    found = turned(skeletons([7], [3]))
    assert found.index_position.tolist() == [[0, 0, 3]]
