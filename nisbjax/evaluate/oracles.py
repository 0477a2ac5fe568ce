"""What NERL would be if one kind of error were gone: how much is left to win, and where.

*fill*: each node on background takes the segment that most nodes of its skeleton are in.
*merge*: segments that belong to one skeleton, by most of their nodes, become one.
*both*: the second, then the first. They jump over gaps where a skeleton leaves the volume
and comes back, so they may promise more than the truth itself reaches (its ceiling). The
reference systems have none.
"""

import numpy as np
from jaxtyping import Bool, Int64, Integer

from nisbjax.evaluate import nerl, node_pairs
from nisbjax.skeletons import Skeletons


def scores(skeletons: Skeletons, counts: node_pairs.Overlap) -> dict[str, float]:
    """NERL after each oracle.

    One skeleton of four nodes 10 nm apart in the segments 5 5 0 6, and one of two nodes in
    the segments 7 7. The squared lengths are 30^2 and 10^2, kept are 10^2 and 10^2: NERL
    is 200 / 1000. Filled, the first is 5 5 5 6 (20^2 + 10^2 = 500 of 1000); merged, it is
    5 5 0 5 (still 200 of 1000, as edges to background are lost); both make it whole: 1.

    Args:
      skeletons: the ground truth.
      counts: their nodes in the segmentation.

    Returns:
      nerl_oracle_fill, nerl_oracle_merge, nerl_oracle_both.
    """
    merged = merge(counts)
    both = fill(node_pairs.overlap(skeletons, merged))
    found = {"fill": fill(counts), "merge": merged, "both": both}
    return {
        f"nerl_oracle_{name}": float(nerl.score(skeletons, segments)["nerl"])
        for name, segments in found.items()
    }


def owners(counts: node_pairs.Overlap) -> Int64[np.ndarray, " s"]:
    """The skeleton that has most nodes in each segment, as a row of `skeleton_ids`; of
    equal ones the first."""
    return _largest(
        counts.pair_segment,
        counts.pair_skeleton,
        counts.pair_nodes,
        np.ones(len(counts.pair_nodes), bool),
        len(counts.segment_ids),
    )


def main_segments(counts: node_pairs.Overlap) -> Int64[np.ndarray, " k"]:
    """The segment that most nodes of each skeleton are in, as a row of `segment_ids`; of
    equal ones the first, and -1 where all lie on background."""
    return _largest(
        counts.pair_skeleton,
        counts.pair_segment,
        counts.pair_nodes,
        ~counts.background_pairs(),
        len(counts.skeleton_ids),
    )


def fill(counts: node_pairs.Overlap) -> Integer[np.ndarray, " n"]:
    """Segments of the nodes, where none lies on background that need not."""
    main = main_segments(counts)[counts.pair_skeleton[counts.node_pair]]
    dark = (counts.node_segments == 0) & (main >= 0)
    return np.where(dark, counts.segment_ids[main], counts.node_segments)


def merge(counts: node_pairs.Overlap) -> Int64[np.ndarray, " n"]:
    """Segments of the nodes, where those of one owner are one; 0 = background."""
    owner = owners(counts)[counts.pair_segment[counts.node_pair]]
    return np.where(counts.node_segments == 0, 0, owner + 1)


def _largest(
    of: Int64[np.ndarray, " p"],
    chosen: Int64[np.ndarray, " p"],
    nodes: Int64[np.ndarray, " p"],
    counted: Bool[np.ndarray, " p"],
    n: int,
) -> Int64[np.ndarray, " n"]:
    """For each row in `of`, the `chosen` of its counted pair with most nodes, else -1."""
    pairs = np.flatnonzero(counted)
    # Assigned in this order, the last one stays: most nodes, then the lowest row.
    pairs = pairs[np.lexsort((-chosen[pairs], nodes[pairs]))]
    found = np.full(n, -1, np.int64)
    found[of[pairs]] = chosen[pairs]
    return found
