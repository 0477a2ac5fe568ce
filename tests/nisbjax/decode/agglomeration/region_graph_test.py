"""The region graph of a volume: by hand, against numpy over the whole volume, and resumed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nisbjax.decode.agglomeration import box_links, tables
from nisbjax.decode.agglomeration.evidence import UNIT
from nisbjax.decode.agglomeration.region_graph import region_graph
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.errors import InputError
from nisbjax.offsets import edge_slices
from nisbjax.store.volume import from_array

SHAPE = (5, 4, 6)
OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 0, 0), (0, 2, -2), (0, 0, -3))
RANDOM = np.random.default_rng(3)
LABELS = RANDOM.integers(0, 5, SHAPE).astype(np.uint32)
AFFINITIES = RANDOM.random((6, *SHAPE)).astype(np.float16)
MASK = RANDOM.random(SHAPE) > 0.2


def volumes(affinities=AFFINITIES, labels=LABELS):
    offsets = [list(o) for o in OFFSETS[: len(affinities)]]
    return (
        from_array(labels, "xyz"),
        from_array(affinities, "cxyz", {"offsets": offsets}),
    )


def rows(graph):
    return np.concatenate(list(graph.blocks())).tolist()


def in_numpy(affinities, labels, edges=None, bins=1):
    """Sums over the whole volume, channel by channel."""
    edges = edges or MaskedEdges()
    found = {}

    def add(low, high, kind, total):
        number, before = found.get((low, high, kind), (0, 0))
        found[low, high, kind] = number + 1, before + total

    mask = np.ones(SHAPE, bool) if edges.mask is None else edges.mask
    held = labels * (mask if edges.both else 1)
    for label in held[held > 0].tolist():
        add(label, label, 0, 0)
    kinds = [0, 0, 0, bins, bins + 1, bins + 2]
    for channel, offset in enumerate(OFFSETS[: len(affinities)]):
        ends = edge_slices(SHAPE, offset)
        stored = ends[1] if edges.edge_offset else ends[0]
        counts = mask[stored]
        if edges.both:
            counts = mask[ends[0]] & mask[ends[1]]
        each = zip(
            counts.ravel().tolist(),
            labels[ends[0]].ravel().tolist(),
            labels[ends[1]].ravel().tolist(),
            affinities[channel][stored].ravel().tolist(),
            strict=True,
        )
        for valid, a, b, p in each:
            if not valid or a == b or not a or not b:
                continue
            kind = kinds[channel]
            if bins > 1 and not kind:
                kind = min(int(p * 256), 255)
            held_p = min(max(p, 1e-3), 1 - 1e-3)
            total = round(math.log(held_p / (1 - held_p)) * UNIT)
            add(min(a, b), max(a, b), kind, total)
    return [[*key, *values] for key, values in sorted(found.items())]


def test_by_hand(tmp_path):
    # Four voxels along z, three fragments 1 1 2 5; p = .75 everywhere, logit log 3. Common
    # faces: 1-2 and 2-5. Offset (0, 0, 3): 1-5; (0, 2, -2) and (3, 0, 0) leave the volume.
    labels = np.array([1, 1, 2, 5], np.uint32).reshape(1, 1, 4)
    log3 = round(math.log(3) * UNIT)
    affinities = np.full((6, 1, 1, 4), 0.75, np.float16)
    graph = region_graph(*volumes(affinities, labels), tmp_path / "g", memory_gb=1.0)
    assert (graph.rows, graph.pairs, graph.labels) == (6, 3, 3)
    assert rows(graph) == [
        [1, 1, 0, 2, 0],
        [1, 2, 0, 1, log3],
        [1, 5, 3, 1, log3],
        [2, 2, 0, 1, 0],
        [2, 5, 0, 1, log3],
        [5, 5, 0, 1, 0],
    ]


@settings(max_examples=40)
@given(
    st.tuples(st.integers(2, 5), st.integers(1, 4), st.integers(2, 6)),
    st.sampled_from([np.float16, np.float32, np.uint8]),
    st.integers(0, 1),
    st.sampled_from([None, "both", "source"]),
    st.booleans(),
)
def test_any_boxes_give_the_sums_over_the_whole_volume(
    tmp_path_factory, box_shape, dtype, edge_offset, mask_edges, histograms
):
    affinities = AFFINITIES.astype(dtype)
    values = affinities.astype(np.float64)
    if dtype == np.uint8:
        affinities = np.round(AFFINITIES * np.float32(255)).astype(dtype)
        values = affinities / 255
    edges = MaskedEdges(edge_offset)
    if mask_edges:
        edges = MaskedEdges(edge_offset, MASK, mask_edges=mask_edges)
    labels, source = volumes(affinities)
    graph = region_graph(
        labels,
        source,
        tmp_path_factory.mktemp("region") / "graph",
        memory_gb=1e-4,
        histograms=histograms,
        edges=edges,
        schedule=Schedule(box_shape=box_shape),
    )
    wanted = in_numpy(values, LABELS, edges, 256 if histograms else 1)
    assert rows(graph) == wanted


def test_labels_of_64_bits_and_files_without_offsets(tmp_path):
    large = 1 << 40
    labels = np.where(LABELS > 0, LABELS.astype(np.uint64) + np.uint64(large), 0)
    labels = labels.astype(np.uint64)
    short = from_array(AFFINITIES[:3], "cxyz")
    graph = region_graph(
        from_array(labels, "xyz"), short, tmp_path / "g", memory_gb=1.0
    )
    wanted = in_numpy(AFFINITIES[:3].astype(np.float64), LABELS)
    assert rows(graph) == [[a + large, b + large, *r] for a, b, *r in wanted]


class Stopped(Exception):
    pass


@pytest.mark.parametrize("boxes", [0, 1, 3])
def test_what_a_kill_left_undone_is_made(tmp_path, monkeypatch, boxes):
    labels, affinities = volumes()
    schedule = Schedule(box_shape=(3, 4, 3))
    wanted = rows(
        region_graph(
            labels, affinities, tmp_path / "whole", memory_gb=1.0, schedule=schedule
        )
    )
    real, done = box_links.count_links, []

    def counting(*arguments):
        if len(done) == boxes:
            raise Stopped
        done.append(1)
        return real(*arguments)

    folder = tmp_path / "graph"
    with monkeypatch.context() as patch:
        patch.setattr(box_links, "count_links", counting)
        with pytest.raises(Stopped):
            region_graph(labels, affinities, folder, memory_gb=1.0, schedule=schedule)
    # Resumed with boxes of the first attempt, whatever is asked for.
    graph = region_graph(labels, affinities, folder, memory_gb=1.0)
    assert rows(graph) == wanted
    assert not (folder / "boxes").exists()
    with monkeypatch.context() as patch:  # finished: nothing is counted
        patch.setattr(box_links, "count_links", None)
        assert region_graph(labels, affinities, folder, memory_gb=1.0) == graph


def test_a_damaged_table_of_a_box_is_made_again(tmp_path, monkeypatch):
    labels, affinities = volumes()
    schedule = Schedule(box_shape=(3, 4, 3))
    folder = tmp_path / "graph"

    def stop(*_, **__):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(tables, "merge", stop)
        with pytest.raises(Stopped):
            region_graph(labels, affinities, folder, memory_gb=1.0, schedule=schedule)
    path = folder / "boxes" / "1.rows"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    found = rows(region_graph(labels, affinities, folder, memory_gb=1.0))
    assert found == in_numpy(AFFINITIES.astype(np.float64), LABELS)


def test_a_damaged_graph_is_made_again(tmp_path):
    labels, affinities = volumes()
    graph = region_graph(labels, affinities, tmp_path, memory_gb=1.0)
    wanted = rows(graph)
    (tmp_path / "links.rows").write_bytes(b"")
    assert rows(region_graph(labels, affinities, tmp_path, memory_gb=1.0)) == wanted


def test_the_graph_of_another_prediction_is_refused(tmp_path):
    labels, affinities = volumes()
    region_graph(
        labels, affinities, tmp_path, memory_gb=1.0, fingerprint={"affinities": "a"}
    )
    with pytest.raises(
        InputError, match=r"other affinities \(affinities: 'a', now 'b'\)"
    ):
        region_graph(
            labels, affinities, tmp_path, memory_gb=1.0, fingerprint={"affinities": "b"}
        )


def test_labels_of_another_shape_are_refused(tmp_path):
    _, affinities = volumes()
    labels = from_array(LABELS[1:], "xyz")
    with pytest.raises(InputError, match=r"labels memory \(4, 4, 6\) do not match"):
        region_graph(labels, affinities, tmp_path / "g", memory_gb=1.0)
    assert not (tmp_path / "g").exists()
