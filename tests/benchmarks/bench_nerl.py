"""Scoring skeletons against the references' way: seconds of each step, and the ratio.

    python tests/benchmarks/bench_nerl.py [--folder ../shared/data/pinky40/val/seed0]

The yardstick is what BANIS does with funlib, written again: dictionaries filled node by
node and edge by edge, once for NERL and each of its four adapted forms, in the same
process. The segmentation is the labels with 1 % of the nodes on background and every third
pair of labels merged, so that all kinds of edges occur.
"""

import argparse
import pathlib
import tempfile
import time
from collections import Counter, defaultdict

import numpy as np

from nisbjax import skeletons
from nisbjax.evaluate import nerl, nodes
from nisbjax.store import volume

PINKY = pathlib.Path(__file__).parents[3] / "shared/data/pinky40/val/seed0"


def dictionary_loop(truth, segments, ignored: float) -> float:
    """ERL, one node and one edge at a time."""
    k, s = dict(enumerate(truth.node_id)), dict(enumerate(segments))
    nodes_of = Counter((k[n], s[n]) for n in k)
    holders = defaultdict(set)
    for (skeleton, segment), count in nodes_of.items():
        if count > ignored:
            holders[segment].add(skeleton)
    merging = {segment for segment in holders if len(holders[segment]) > 1}
    merged = {skeleton for segment in merging for skeleton in holders[segment]}
    run, total = defaultdict(float), 0.0
    for u, v in truth.edges:
        length = float(np.linalg.norm(truth.position_nm[u] - truth.position_nm[v]))
        total += length
        if s[u] == 0 or s[v] == 0 or s[u] != s[v]:
            continue
        if not (k[u] in merged and s[u] in merging):
            run[k[u], s[u]] += length
    return sum(x * x for x in run.values()) / total


def best_of(function, repeats: int):
    """The shortest of some runs [s], and the result."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, default=PINKY)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    pickled = arguments.folder / "skeleton.pkl"
    if not pickled.exists():
        print(f"skipped: no {pickled}")
        return
    labels = volume.open_labels(arguments.folder / "data.zarr" / "seg")
    with tempfile.TemporaryDirectory() as cache:
        first, truth = best_of(lambda: skeletons.load(pickled, cache=cache), 1)
        again, _ = best_of(
            lambda: skeletons.load(pickled, cache=cache), arguments.repeats
        )
    read, segments = best_of(
        lambda: nodes.read_node_segments(labels, truth), arguments.repeats
    )
    segments = np.where(segments % 3 == 0, segments + 1, segments)
    segments[np.random.default_rng(0).random(len(segments)) < 0.01] = 0
    scored, score = best_of(lambda: nerl.score(truth, segments), arguments.repeats)
    sizes = {
        "nerl": 0,
        **{f"nerl_{k}": v for k, v in nerl.IGNORED_MERGER_SIZES.items()},
    }
    looped, loops = best_of(
        lambda: {k: dictionary_loop(truth, segments, v) for k, v in sizes.items()}, 1
    )
    for name, erl in loops.items():
        assert np.isclose(erl / score["max_erl"], score[name], rtol=1e-9), name
    print(f"{len(truth.node_id)} nodes, {len(truth.edges)} edges")
    print(f"load pickle {first:.2f} s, from the cache {again:.3f} s")
    print(f"read segments at nodes {read:.3f} s")
    print(f"score, all figures {scored:.3f} s")
    print(f"dictionary loops, NERL and adapted NERL alone {looped:.2f} s")
    print(f"ratio {looped / scored:.0f}, results equal to 1e-9")


if __name__ == "__main__":
    main()
