"""Expected run length of skeletons in a segmentation, and its relatives.

NERL and its adapted forms as BANIS `metrics.py` computes them with funlib.evaluate (ERL:
Januszewski et al. 2018, doi:10.1038/s41592-018-0049-4), and the more lenient variant of
PyTC / em_erl. The references walk dictionaries node by node, once per variant; here the
nodes are counted into pairs (skeleton, segment) once, and every variant is a few
reductions over pairs and edges.

Let node n have skeleton k(n) and segment s(n), 0 being background. Edge (u, v) of length
l belongs to skeleton k(u), and is
    omitted   if s(u) = 0 or s(v) = 0, otherwise
    split     if s(u) != s(v), otherwise
    merged    if k(u) shares any segment with another skeleton, and s(u) is shared,
    correct   otherwise.
With l_ks the length of correct edges of skeleton k in segment s and L that of all edges,
ERL = sum l_ks^2 / L, and NERL = ERL / ERL of the ground truth itself.
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
IGNORED_MERGER_SIZES = {"5": 5.0, "20": 20.0, "100": 100.0, "inf": np.inf}


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


def skeleton_lengths_nm(skeletons: Skeletons) -> Float64[np.ndarray, " k"]:
    """Length of the edges of each skeleton [nm], in ascending order of its id."""
    skeleton = np.unique(skeletons.node_id, return_inverse=True)[1]
    first = skeleton[skeletons.edges[:, 0]]
    return np.bincount(
        first, skeletons.edge_lengths_nm, minlength=int(skeleton.max(initial=-1)) + 1
    )


def score(
    skeletons: Skeletons,
    node_segments: Integer[np.ndarray, " n"],
    *,
    counts: Overlap | None = None,
) -> dict[str, float | int]:
    """All figures of BANIS's evaluation of a segmentation by skeletons, and em_erl's.

    Args:
      skeletons: the ground truth.
      node_segments: predicted segment of each node (the value at its voxel, without
        interpolation), 0 = background.
      counts: what `overlap` made of the two, where the caller has it already.

    Returns:
      erl, max_erl [nm]; nerl. nerl_5, nerl_20, nerl_100, nerl_inf: pairs of skeleton
      and segment with at most so many nodes cause no merger. nerl_em_erl_50: as
      `Overlap.merging_em_erl`; not comparable with the leaderboard. voi_split,
      voi_merge, voi_sum [bit], rand_split, rand_merge: over nodes of id other than 0.
      n_mergers: skeletons in shared segments, summed over these segments, background
      among them; n_non0_mergers: without it; n_splits: split edges; n_correct,
      n_merged, n_omitted: the others. n_nodes, n_edges, n_skeletons, n_segments
      (without background). coverage: share of nodes that lie on background, as the
      LICONN notes of PyTC count it (0 is best); coverage_length: share of length
      whose edge has an end on background.

    Raises:
      InputError: as `overlap`, or no skeleton has an id other than 0.
    """
    counts = overlap(skeletons, node_segments) if counts is None else counts
    lengths = counts.lengths_nm
    total = lengths.sum()

    ids = skeletons.node_id[counts.edges]
    within = ids[:, 0] == ids[:, 1]
    # the truth as its own segmentation: id 0 would be background there too
    own = np.where(within & (ids[:, 0] != 0), lengths, 0.0)
    own_skeleton = counts.pair_skeleton[counts.edge_pair]
    own_lengths = np.bincount(own_skeleton, own, minlength=len(counts.skeleton_ids))
    max_erl = float((own_lengths**2).sum() / total)
    if not max_erl > 0:
        raise InputError(
            f"{skeletons.source} has no edge between nodes of one id other than 0, so "
            "NERL is undefined; wanted the segment of each node as its id"
        )

    def erl(merging: Bool[np.ndarray, " p"]) -> float:
        return float((kept_lengths_nm(counts, merging) ** 2).sum() / total)

    result: dict[str, float | int] = {"erl": erl(counts.merging()), "max_erl": max_erl}
    result["nerl"] = result["erl"] / max_erl
    for name, size in IGNORED_MERGER_SIZES.items():
        result[f"nerl_{name}"] = erl(counts.merging(size)) / max_erl
    result["nerl_em_erl_50"] = _nerl_em_erl(counts, within)
    result |= _voi(counts)

    status = edge_status(counts)
    shared = counts.shared_pairs()
    background = counts.background_pairs()
    number = dict(zip(STATUS_NAMES, np.bincount(status, minlength=4).tolist()))
    return result | {
        "n_mergers": int(shared.sum()),
        "n_non0_mergers": int((shared & ~background).sum()),
        "n_splits": number["split"],
        "n_correct": number["correct"],
        "n_merged": number["merged"],
        "n_omitted": number["omitted"],
        "n_nodes": len(skeletons.node_id),
        "n_edges": len(lengths),
        "n_skeletons": len(counts.skeleton_ids),
        "n_segments": int(np.count_nonzero(counts.segment_ids)),
        "coverage": float(counts.pair_nodes[background].sum() / len(skeletons.node_id)),
        "coverage_length": float(lengths[status == OMITTED].sum() / total),
    }


def _nerl_em_erl(counts: Overlap, within: Bool[np.ndarray, " e"]) -> float:
    """NERL with em_erl's mergers.

    em_erl drops edges between skeletons altogether, and knows no background among
    skeletons: one of id 0 counts like every other, in the score and in its norm.
    """
    lengths = np.where(within, counts.lengths_nm, 0.0)
    of_skeleton = np.bincount(
        counts.pair_skeleton[counts.edge_pair],
        lengths,
        minlength=len(counts.skeleton_ids),
    )
    correct = counts.edge_status == CORRECT
    kept = np.bincount(
        counts.edge_pair[correct], lengths[correct], minlength=len(counts.pair_nodes)
    )
    kept[counts.merging_em_erl()] = 0
    return float((kept**2).sum() / (of_skeleton**2).sum())


def _voi(counts: Overlap) -> dict[str, float]:
    """Variation of information and Rand over nodes of id other than 0, as funlib."""
    known = counts.skeleton_ids[counts.pair_skeleton] != 0
    joint = counts.pair_nodes[known]
    truth = np.bincount(counts.pair_skeleton[known], joint)
    found = np.bincount(counts.pair_segment[known], joint)
    together = _entropy(joint)
    # conditional entropies, which rounding may leave at -1e-16
    split = max(together - _entropy(truth), 0.0)
    merge = max(together - _entropy(found), 0.0)
    agree = float((joint.astype(np.float64) ** 2).sum())
    return {
        "voi_split": split,
        "voi_merge": merge,
        "voi_sum": split + merge,
        "rand_split": agree / float((truth**2).sum()),
        "rand_merge": agree / float((found**2).sum()),
    }


def _entropy(counts: np.ndarray) -> float:
    """Entropy of a histogram [bit]."""
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log2(share)).sum())
