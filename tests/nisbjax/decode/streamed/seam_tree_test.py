"""The tree of layers against one flat union of everything, on random tables."""

import pathlib

import hypothesis
import hypothesis.strategies as st
import numpy as np

from nisbjax.decode.streamed.seam_tree import SeamTree, gather, one_by_one, unite
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


def leaf(first, size, low, high):
    """Keys and components at a side are pairs."""
    node = {"first": np.array(first), "size": np.array(size)}
    for side, ends in (("low", low), ("high", high)):
        keys, components = np.array(ends, np.int64).reshape(-1, 2).T
        node |= {f"keys_{side}": keys, f"component_{side}": components}
    return node


def test_the_three_layers_that_are_drawn(tmp_path):
    tree = SeamTree(tmp_path, 3)
    tree.save(0, 0, leaf([0], [2], [], [(1, 0)]))  # a
    # b is 0 and c is 1: key 4 of b at both sides, key 7 of c at the high one.
    tree.save(0, 1, leaf([10, 12], [3, 1], [(4, 0)], [(4, 0), (7, 1)]))
    tree.save(0, 2, leaf([20], [5], [(2, 0)], []))  # d
    np.save(tree.crossing(0), [[1], [4]])
    np.save(tree.crossing(1), [[4, 7], [2, 2]])

    tree.merge(one_by_one)
    # Level 1: a and b are one, 2 + 3 voxels from 0; c goes on beside it.
    pair = tree.load(1, 0)
    assert pair["first"].tolist() == [0, 12] and pair["size"].tolist() == [5, 1]
    assert pair["keys_high"].tolist() == [4, 7] and not len(pair["keys_low"])
    assert tree.load(1, 1)["keys_low"].tolist() == [2]  # d alone
    assert [tree.load(0, k)["up"].tolist() for k in range(3)] == [[0], [0, 1], [0]]
    # The root: 5 + 1 + 5 voxels, and no seam goes on.
    root = tree.load(2, 0)
    assert (root["first"].tolist(), root["size"].tolist()) == ([0], [11])
    assert not len(root["keys_low"]) and not len(root["keys_high"])

    tree.descend(one_by_one, ("first", "size"))
    leaves = [tree.load(0, k) for k in range(3)]
    assert [node["first"].tolist() for node in leaves] == [[0], [0, 0], [0]]
    assert [node["size"].tolist() for node in leaves] == [[11], [11, 11], [11]]

    # Leaf 0 labels the component 7; all others learn it.
    for k, (node, label) in enumerate(zip(leaves, ([7], [0, 0], [0]), strict=True)):
        tree.save(0, k, node | {"label": np.array(label)})
    tree.ascend_labels(one_by_one)
    tree.descend(one_by_one, ("label",))
    labels = [tree.load(0, k)["label"].tolist() for k in range(3)]
    assert labels == [[7], [7, 7], [7]]
