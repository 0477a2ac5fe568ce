"""NERL against a dictionary loop written line by line from the formula."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.evaluate import nerl, node_pairs
from nisbjax.skeletons import Skeletons


def chain(node_id, edges, positions_nm=None) -> Skeletons:
    """Nodes 10 nm apart along x unless placed."""
    n = len(node_id)
    index = np.stack([np.arange(n), np.zeros(n), np.zeros(n)], axis=1).astype(np.int64)
    return Skeletons(
        node_id=np.array(node_id, np.int64),
        index_position=index,
        position_nm=10.0 * index if positions_nm is None else positions_nm,
        edges=np.array(edges, np.int64).reshape(-1, 2),
    )


# --- the oracle -----------------------------------------------------------------------


def slow_erl(k, s, edges, length, ignored=0.0):
    """ERL as BANIS computes it, one node and one edge at a time."""
    total = sum(length[e] for e in range(len(edges)))
    nodes = Counter((k[n], s[n]) for n in k)
    pairs = {pair for pair in nodes if nodes[pair] > ignored}
    holders = defaultdict(set)
    for skeleton, segment in pairs:
        holders[segment].add(skeleton)
    merging = {segment for segment in holders if len(holders[segment]) > 1}
    merged = {skeleton for skeleton, segment in pairs if segment in merging}
    run = defaultdict(float)
    status = []
    for e, (u, v) in enumerate(edges):
        if s[u] == 0 or s[v] == 0:
            status.append("omitted")
        elif s[u] != s[v]:
            status.append("split")
        elif k[u] in merged and s[u] in merging:
            status.append("merged")
        else:
            status.append("correct")
            run[k[u], s[u]] += length[e]
    erl = 0.0
    for piece in run.values():
        erl += piece**2 / total
    n_mergers = sum(len(holders[g]) for g in merging)
    n_non0 = sum(len(holders[g]) for g in merging if g != 0)
    return erl, status, n_mergers, n_non0


def slow_em_erl(k, s, edges, length, threshold):
    """em_erl: pairs of `threshold` nodes merge; edges between skeletons are dropped."""
    nodes = Counter((k[n], s[n]) for n in k)
    run, own = defaultdict(float), defaultdict(float)
    for e, (u, v) in enumerate(edges):
        if k[u] != k[v]:
            continue
        own[k[u]] += length[e]
        if s[u] == 0 or s[u] != s[v]:
            continue
        large = [key for key in nodes if key[1] == s[u] and nodes[key] >= threshold]
        if len(large) < 2:
            run[k[u], s[u]] += length[e]
    return sum(x * x for x in run.values()) / sum(x * x for x in own.values())


def slow_voi(k, s):
    """H(pred | gt) and H(gt | pred) from the conditional entropies themselves."""
    known = [n for n in k if k[n] != 0]

    def conditional(x, given_y):
        total = 0.0
        for y in {given_y[n] for n in known}:
            inside = [n for n in known if given_y[n] == y]
            for count in Counter(x[n] for n in inside).values():
                total -= count / len(known) * math.log2(count / len(inside))
        return total

    return conditional(s, k), conditional(k, s)


# --- hand cases -----------------------------------------------------------------------


def test_em_erl_counts_a_skeleton_of_id_0_like_any_other():
    # Skeletons 0 and 2 of one edge of 10 nm each, in segments 5 and 6: em_erl's ERL is
    # (10^2 + 10^2) / 20, of the truth too. Half of that if segment 5 misses a node.
    skeletons = chain([0, 0, 2, 2], [(0, 1), (2, 3)])
    found = nerl.score(skeletons, np.array([5, 5, 6, 6]))
    assert found["nerl_em_erl_50"] == 1
    found = nerl.score(skeletons, np.array([5, 0, 6, 6]))
    assert found["nerl_em_erl_50"] == 0.5


def test_one_skeleton_split_in_the_middle():
    # 5 nodes, 4 edges of 10 nm: L = 40. Segments 7 7 7 8 8: edges correct, correct,
    # split, correct -> l = 20 in segment 7, 10 in segment 8.
    # ERL = (20^2 + 10^2) / 40 = 12.5; max ERL = 40^2 / 40 = 40; NERL = 0.3125.
    skeletons = chain([1] * 5, [(0, 1), (1, 2), (2, 3), (3, 4)])
    result = nerl.score(skeletons, np.array([7, 7, 7, 8, 8]))
    assert result["erl"] == pytest.approx(12.5)
    assert result["max_erl"] == pytest.approx(40)
    assert result["nerl"] == pytest.approx(0.3125)
    assert (result["n_splits"], result["n_mergers"], result["n_correct"]) == (1, 0, 3)
    # VOI split: H(pred | gt) of 3/5, 2/5
    expected = -(0.6 * math.log2(0.6) + 0.4 * math.log2(0.4))
    assert result["voi_split"] == pytest.approx(expected)
    assert result["voi_merge"] == pytest.approx(0)
    # pairs (1,7) 3 nodes and (1,8) 2 nodes: sum of squares 13 of 25
    assert result["rand_split"] == pytest.approx(13 / 25)
    assert result["rand_merge"] == pytest.approx(1)


def test_one_stray_node_merges_two_skeletons_and_one_lies_on_background():
    # Skeleton 1: nodes 0-3 (30 nm), skeleton 2: nodes 4-7 (30 nm); L = 60.
    # Segments 5 5 5 5 | 5 6 6 0. Segment 5 holds both skeletons:
    #   skeleton 1: 3 edges in 5, all merged
    #   skeleton 2: edge 4-5 split, 5-6 correct (10 nm), 6-7 omitted
    # ERL = 10^2 / 60; max ERL = (30^2 + 30^2) / 60 = 30; NERL = 1/18.
    edges = [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)]
    skeletons = chain([1] * 4 + [2] * 4, edges)
    segments = np.array([5, 5, 5, 5, 5, 6, 6, 0], np.uint64)
    result = nerl.score(skeletons, segments)
    assert result["erl"] == pytest.approx(100 / 60)
    assert result["nerl"] == pytest.approx(1 / 18)
    assert result["n_mergers"] == 2
    assert result["n_non0_mergers"] == 2
    assert (result["n_merged"], result["n_omitted"]) == (3, 1)
    # the stray pair (2, 5) has one node: ignoring pairs of up to 5 nodes drops every
    # merger, so skeleton 1 keeps 30 nm: (30^2 + 10^2) / (30^2 + 30^2)
    assert result["nerl_5"] == pytest.approx(1000 / 1800)
    assert result["nerl_inf"] == pytest.approx(1000 / 1800)
    assert result["nerl_em_erl_50"] == pytest.approx(1000 / 1800)
    assert result["coverage"] == pytest.approx(1 / 8)
    assert result["coverage_length"] == pytest.approx(10 / 60)
    names = [node_pairs.STATUS_NAMES[i] for i in status_of(skeletons, segments)]
    assert names == ["merged"] * 3 + ["split", "correct", "omitted"]


def status_of(skeletons, segments):
    return node_pairs.edge_status(node_pairs.overlap(skeletons, segments))


def test_background_shared_by_two_skeletons_counts_as_a_merger_but_costs_nothing_more():
    # nodes 1 and 3 on background: every edge is omitted; G = {0} holds both skeletons
    result = nerl.score(chain([1, 1, 2, 2], [(0, 1), (2, 3)]), np.array([3, 0, 4, 0]))
    assert (result["n_mergers"], result["n_non0_mergers"]) == (2, 0)
    assert result["nerl"] == 0
    assert result["coverage"] == 0.5
    assert result["coverage_length"] == 1


def test_a_dropped_pair_still_loses_its_edges_to_a_merger_of_others():
    # Ignored size 5. Segment 9: skeletons 1 and 2 with 6 nodes each -> merges.
    # Skeleton 3 has 2 nodes in 9 (dropped) and no other merger: its edge is correct.
    # With 6 more of its nodes in segment 8, shared with 6 nodes of skeleton 1,
    # skeleton 3 is merged and 9 merges, so the dropped pair's edge is lost after all.
    ids = [1] * 6 + [2] * 6 + [3] * 2
    edges = [(i, i + 1) for i in range(13) if i not in (5, 11)]
    lone = node_pairs.overlap(chain(ids, edges), np.full(14, 9))
    lost = node_pairs.kept_lengths_nm(lone, lone.merging(5.0))
    assert lost.tolist() == [0, 0, 10]

    more = ids + [3] * 6 + [1] * 6
    edges += [(i, i + 1) for i in range(14, 25) if i != 19]
    both = node_pairs.overlap(chain(more, edges), np.array([9] * 14 + [8] * 12))
    assert node_pairs.kept_lengths_nm(both, both.merging(5.0)).sum() == 0


def test_the_truth_scores_one():
    skeletons = chain([4, 4, 9, 9], [(0, 1), (2, 3)])
    result = nerl.score(skeletons, skeletons.node_id)
    for name in ("nerl", "nerl_5", "nerl_inf", "nerl_em_erl_50"):
        assert result[name] == 1
    assert result["voi_sum"] == 0


# --- against the oracle ---------------------------------------------------------------


@st.composite
def problems(draw):
    n = draw(st.integers(2, 40))
    few = st.integers(0, 3)
    ids = draw(st.lists(few, min_size=n, max_size=n))
    segments = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    node = st.integers(0, n - 1)
    edges = draw(st.lists(st.tuples(node, node), min_size=1, max_size=60))
    seed = draw(st.integers(0, 9))
    # ends of one id and of several, so that both kinds of edges occur
    ids[edges[0][0]] = ids[edges[0][1]] = 2
    positions = np.random.default_rng(seed).normal(size=(n, 3)) * 30
    if edges[0][0] == edges[0][1]:
        edges.append((0, 1))
        ids[0] = ids[1] = 2
    return ids, segments, edges, positions


@given(problems())
def test_equals_the_dictionary_loop(problem):
    ids, segments, edges, positions = problem
    skeletons = chain(ids, edges, positions)
    node_segments = np.array(segments, np.uint32)
    result = nerl.score(skeletons, node_segments)

    k, s = dict(enumerate(ids)), dict(enumerate(segments))
    length = [math.dist(positions[u], positions[v]) for u, v in edges]
    erl, status, n_mergers, n_non0 = slow_erl(k, s, edges, length)
    max_erl = slow_erl(k, k, edges, length)[0]
    assert result["erl"] == pytest.approx(erl)
    assert result["max_erl"] == pytest.approx(max_erl)
    assert result["nerl"] == pytest.approx(erl / max_erl)
    for name, size in (("5", 5), ("20", 20), ("100", 100), ("inf", math.inf)):
        slow = slow_erl(k, s, edges, length, size)[0]
        assert result[f"nerl_{name}"] == pytest.approx(slow / max_erl)
    assert result["nerl_em_erl_50"] == pytest.approx(
        slow_em_erl(k, s, edges, length, 50)
    )
    assert (result["n_mergers"], result["n_non0_mergers"]) == (n_mergers, n_non0)
    for name in node_pairs.STATUS_NAMES:
        key = "n_splits" if name == "split" else f"n_{name}"
        assert result[key] == status.count(name)
    split, merge = slow_voi(k, s)
    assert result["voi_split"] == pytest.approx(split, abs=1e-9)
    assert result["voi_merge"] == pytest.approx(merge, abs=1e-9)
    assert result["coverage"] == pytest.approx(segments.count(0) / len(segments))


@given(problems(), st.integers(1, 4), st.integers(0, 9))
def test_em_erl_equals_its_loop_at_any_threshold(problem, threshold, ignored):
    ids, segments, edges, positions = problem
    counts = node_pairs.overlap(chain(ids, edges, positions), np.array(segments))
    k, s = dict(enumerate(ids)), dict(enumerate(segments))
    nodes = Counter((k[n], s[n]) for n in k)
    merging = counts.merging_em_erl(threshold)
    for pair in range(len(merging)):
        segment = counts.segment_ids[counts.pair_segment[pair]]
        large = [p for p in nodes if p[1] == segment and nodes[p] >= threshold]
        assert merging[pair] == (len(large) > 1)
    length = [math.dist(positions[u], positions[v]) for u, v in edges]
    erl = slow_erl(k, s, edges, length, ignored)[0]
    kept = node_pairs.kept_lengths_nm(counts, counts.merging(float(ignored)))
    assert (kept**2).sum() / sum(length) == pytest.approx(erl)


@given(problems(), st.randoms(use_true_random=False))
def test_is_unchanged_by_relabelling_and_by_node_order(problem, random):
    ids, segments, edges, positions = problem
    before = nerl.score(chain(ids, edges, positions), np.array(segments))
    names = list(range(1, 60))
    random.shuffle(names)
    renamed = np.array([0 if x == 0 else names[x] for x in segments])
    order = list(range(len(ids)))
    random.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    after = nerl.score(
        chain(
            [ids[i] for i in order],
            [(place[u], place[v]) for u, v in edges],
            positions[order],
        ),
        renamed[order],
    )
    assert after == pytest.approx(before)


# --- real data and errors -------------------------------------------------------------


def test_real_skeletons_in_their_own_labels(shared_data):
    from nisbjax import skeletons
    from nisbjax.evaluate.nodes import read_node_segments
    from nisbjax.store import volume

    folder = shared_data / "fib25" / "val" / "seed1"
    truth = skeletons.load(folder / "skeleton.pkl")
    labels = volume.open_labels(folder / "data.zarr" / "seg")
    result = nerl.score(truth, read_node_segments(labels, truth))
    assert result["nerl"] > 0.99
    assert result["n_nodes"] == len(truth.node_id) == 7250


def test_another_number_of_segments_than_nodes():
    skeletons = chain([1, 1], [(0, 1)])
    with pytest.raises(InputError, match="3 node segments came for the 2 nodes"):
        nerl.score(skeletons, np.array([1, 1, 1]))


@pytest.mark.parametrize("edges", [[], [(0, 0)]])
def test_skeletons_without_length(edges):
    with pytest.raises(InputError, match="no length, so NERL is undefined"):
        nerl.score(chain([1, 1], edges), np.array([1, 1]))


def test_skeletons_of_id_0_alone():
    with pytest.raises(InputError, match="no edge between nodes of one id other than"):
        nerl.score(chain([0, 0], [(0, 1)]), np.array([1, 1]))
