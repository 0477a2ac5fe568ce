"""Nodes counted into pairs of skeleton and segment, and what a merger claims of them.

Every variant of NERL, the tables and the error counts are a few reductions over these pairs
and the edges. BANIS (with funlib.evaluate) and em_erl walk dictionaries node by node, once
for each variant.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, UInt8

from nisbjax.errors import InputError
from nisbjax.skeletons import Skeletons

CORRECT, SPLIT, MERGED, OMITTED = range(4)
STATUS_NAMES = ("correct", "split", "merged", "omitted")
# a merger counts from this many nodes on in em_erl, as PyTC calls it since 2026-08
EM_ERL_MERGE_THRESHOLD = 50


@dataclass(frozen=True, eq=False)
class Overlap:
    """Nodes counted into pairs of skeleton and segment; p pairs, k skeletons, s segments.

    Attributes:
      skeleton_ids: the distinct ground-truth ids, ascending.
      segment_ids: the distinct segment ids, ascending.
      pair_skeleton: row in `skeleton_ids` of each pair.
      pair_segment: row in `segment_ids` of each pair.
      pair_nodes: how many nodes each pair holds.
      node_segments: segment of each node, as it came.
      node_pair: pair of each node.
      edges: rows of the nodes of each edge.
      lengths_nm: length of each edge [nm].
      edge_status: `OMITTED`, `SPLIT`, or `CORRECT` for edges that a merger may claim.
    """

    skeleton_ids: Int64[np.ndarray, " k"]
    segment_ids: Integer[np.ndarray, " s"]
    pair_skeleton: Int64[np.ndarray, " p"]
    pair_segment: Int64[np.ndarray, " p"]
    pair_nodes: Int64[np.ndarray, " p"]
    node_segments: Integer[np.ndarray, " n"]
    node_pair: Int64[np.ndarray, " n"]
    edges: Int64[np.ndarray, "e 2"]
    lengths_nm: Float64[np.ndarray, " e"]
    edge_status: UInt8[np.ndarray, " e"]

    @property
    def edge_pair(self) -> Int64[np.ndarray, " e"]:
        """Pair of the first node of each edge."""
        return self.node_pair[self.edges[:, 0]]

    def merging(self, ignored_size: float = 0.0) -> Bool[np.ndarray, " p"]:
        """Pairs whose edges are merged, when pairs up to `ignored_size` nodes are ignored.

        As funlib does after BANIS dropped the small pairs: a dropped pair still loses its
        edges where its skeleton and its segment are each in some merger.
        """
        counted = self.pair_nodes > ignored_size
        shared = self._shared(counted)
        merged = np.zeros(len(self.skeleton_ids), bool)
        merged[self.pair_skeleton[counted & shared[self.pair_segment]]] = True
        return merged[self.pair_skeleton] & shared[self.pair_segment]

    def merging_em_erl(
        self, merge_threshold: int = EM_ERL_MERGE_THRESHOLD
    ) -> Bool[np.ndarray, " p"]:
        """Pairs whose edges are merged as em_erl counts it.

        A segment merges when at least two skeletons have `merge_threshold` nodes in it;
        then every skeleton that touches it loses its edges there.
        """
        shared = self._shared(self.pair_nodes >= merge_threshold)
        return shared[self.pair_segment]

    def shared_pairs(self) -> Bool[np.ndarray, " p"]:
        """Pairs whose segment holds nodes of two skeletons or more."""
        shared = self._shared(np.ones(len(self.pair_nodes), bool))
        return shared[self.pair_segment]

    def background_pairs(self) -> Bool[np.ndarray, " p"]:
        """Pairs whose segment is 0."""
        return self.segment_ids[self.pair_segment] == 0

    def _shared(self, counted: Bool[np.ndarray, " p"]) -> Bool[np.ndarray, " s"]:
        holders = np.bincount(
            self.pair_segment[counted], minlength=len(self.segment_ids)
        )
        return holders > 1


def overlap(skeletons: Skeletons, node_segments: Integer[np.ndarray, " n"]) -> Overlap:
    """Counts nodes into pairs of skeleton and segment, and classifies edges.

    Args:
      skeletons: the ground truth.
      node_segments: predicted segment of each node, 0 = background.

    Raises:
      InputError: another number of segments than of nodes, or no edge with a length.
    """
    if len(node_segments) != len(skeletons.node_id):
        raise InputError(
            f"{len(node_segments)} node segments came for the {len(skeletons.node_id)} "
            f"nodes of {skeletons.source}; wanted one each"
        )
    skeleton_ids, skeleton = np.unique(skeletons.node_id, return_inverse=True)
    segment_ids, segment = np.unique(node_segments, return_inverse=True)
    key = skeleton * np.int64(len(segment_ids)) + segment
    pairs, node_pair, pair_nodes = np.unique(
        key, return_inverse=True, return_counts=True
    )
    lengths = skeletons.edge_lengths_nm
    if not lengths.sum() > 0:
        raise InputError(
            f"{skeletons.source} has {len(skeletons.node_id)} nodes and {len(lengths)} "
            "edges but no length, so NERL is undefined; wanted skeletons with edges"
        )
    ends = node_segments[skeletons.edges]
    status = np.full(len(lengths), CORRECT, np.uint8)
    status[ends[:, 0] != ends[:, 1]] = SPLIT
    status[(ends == 0).any(axis=1)] = OMITTED
    return Overlap(
        skeleton_ids=skeleton_ids,
        segment_ids=segment_ids,
        pair_skeleton=pairs // len(segment_ids),
        pair_segment=pairs % len(segment_ids),
        pair_nodes=pair_nodes.astype(np.int64),
        node_segments=node_segments,
        node_pair=node_pair,
        edges=skeletons.edges,
        lengths_nm=lengths,
        edge_status=status,
    )


def edge_status(counts: Overlap) -> UInt8[np.ndarray, " e"]:
    """Status of each edge: an index into `STATUS_NAMES`."""
    merged = (counts.edge_status == CORRECT) & counts.merging()[counts.edge_pair]
    return np.where(merged, np.uint8(MERGED), counts.edge_status)


def kept_lengths_nm(
    counts: Overlap, merging: Bool[np.ndarray, " p"]
) -> Float64[np.ndarray, " p"]:
    """Length of correct edges of each pair [nm], given which pairs are merged."""
    correct = counts.edge_status == CORRECT
    kept = np.bincount(
        counts.edge_pair[correct],
        counts.lengths_nm[correct],
        minlength=len(counts.pair_nodes),
    )
    # bincount of nothing is integral
    return np.where(merging, 0.0, kept.astype(np.float64))
