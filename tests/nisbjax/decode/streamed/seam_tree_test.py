"""The tree of layers against one flat union of everything, on random tables."""

import pathlib

import hypothesis
import hypothesis.strategies as st
import numpy as np

from nisbjax.decode.streamed.seam_tree import SeamTree, gather, unite
from nisbjax.parallel import cluster


def pairs(rng, before, behind, count):
    """Random joins between keys of two layers, [2 count]."""
    return np.stack([rng.choice(before, count), rng.choice(behind, count)])


@hypothesis.given(
    seed=st.integers(0, 2**32 - 1), leaves=st.integers(1, 9), threads=st.booleans()
)
def test_a_tree_of_merges_equals_one_flat_union(
    seed, leaves, threads, tmp_path_factory
):
    rng = np.random.default_rng(seed)
    tree = SeamTree(tmp_path_factory.mktemp("tree"), leaves)
    # Keys 0.. of each layer with gaps; first voxels ascend from layer to layer.
    keys = [np.flatnonzero(rng.random(12) < 0.7) for _ in range(leaves)]
    keys = [k if len(k) else np.array([3]) for k in keys]
    crossings = [
        pairs(rng, keys[k], keys[k + 1], rng.integers(0, 4)) for k in range(leaves - 1)
    ]
    for k, crossing in enumerate(crossings):
        np.save(tree.crossing(k), crossing)
    starts = np.cumsum([0, *map(len, keys)]).tolist()
    flat, firsts, sizes = [], [], []
    for k, own in enumerate(keys):
        ends, others = pairs(rng, np.arange(len(own)), np.arange(len(own)), 2)
        flat.append(starts[k] + np.stack([ends, others]))
        first = starts[k] + rng.permutation(len(own))
        size = rng.integers(1, 9, len(own))
        count, component = unite(ends, others, len(own))
        leaf = gather(component, count, first, size) | {"component": component}
        outer = {
            "low": np.unique(crossings[k - 1][1]) if k else np.empty(0, int),
            "high": np.unique(crossings[k][0]) if k + 1 < leaves else np.empty(0, int),
        }
        for side, at in outer.items():
            leaf[f"keys_{side}"] = at
            leaf[f"component_{side}"] = component[np.searchsorted(own, at)]
        tree.save(0, k, leaf)
        firsts.append(first)
        sizes.append(size)
    for k, (a, b) in enumerate(crossings):
        below = starts[k] + np.searchsorted(keys[k], a)
        above = starts[k + 1] + np.searchsorted(keys[k + 1], b)
        flat.append(np.stack([below, above]))
    _, component = unite(*np.hstack(flat), starts[-1])
    expected = gather(
        component,
        int(component.max()) + 1,
        np.concatenate(firsts),
        np.concatenate(sizes),
    )

    with cluster.Workers("threads", 2 if threads else 1) as team:
        tree.merge(team.map)
        tree.descend(team.map, ("first", "size"))
        found = [tree.load(0, k) for k in range(leaves)]
        for name in ("first", "size"):
            values = [leaf[name][leaf["component"]] for leaf in found]
            np.testing.assert_array_equal(
                np.concatenate(values), expected[name][component]
            )
        # The leaf where a component begins labels it; all others learn its label.
        for k, leaf in enumerate(found):
            begins = (starts[k] <= leaf["first"]) & (leaf["first"] < starts[k + 1])
            leaf["label"] = np.where(begins, leaf["first"] + 100, 0)
            tree.save(0, k, leaf)
        tree.ascend_labels(team.map)
        tree.descend(team.map, ("label",))
    labels = [tree.load(0, k) for k in range(leaves)]
    labels = np.concatenate([leaf["label"][leaf["component"]] for leaf in labels])
    np.testing.assert_array_equal(labels, expected["first"][component] + 100)


def test_levels():
    # 5 leaves: 3 pairs of which one is alone, 2, 1.
    assert SeamTree(pathlib.Path(), 5).counts == [5, 3, 2, 1]
    assert SeamTree(pathlib.Path(), 1).counts == [1]
