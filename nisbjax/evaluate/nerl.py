"""Expected run length of skeletons in a segmentation, and its relatives.

NERL and its adapted forms as BANIS `metrics.py` computes them with funlib.evaluate (ERL:
Januszewski et al. 2018, doi:10.1038/s41592-018-0049-4), and the more lenient variant of
PyTC / em_erl. The references walk dictionaries node by node, once per variant; here the
nodes are counted into pairs (skeleton, segment) once (`node_pairs`), and every variant is
a few reductions over pairs and edges.

Let node n have skeleton k(n) and segment s(n), 0 being background. Edge (u, v) of length
l belongs to skeleton k(u), and is
    omitted   if s(u) = 0 or s(v) = 0, otherwise
    split     if s(u) != s(v), otherwise
    merged    if k(u) shares any segment with another skeleton, and s(u) is shared,
    correct   otherwise.
With l_ks the length of correct edges of skeleton k in segment s and L that of all edges,
ERL = sum l_ks^2 / L, and NERL = ERL / ERL of the ground truth itself.
"""

import numpy as np
from jaxtyping import Bool, Float64, Integer

from nisbjax.errors import InputError
from nisbjax.evaluate import node_pairs, spread
from nisbjax.skeletons import Skeletons

IGNORED_MERGER_SIZES = {"5": 5.0, "20": 20.0, "100": 100.0, "inf": np.inf}


def score(
    skeletons: Skeletons,
    node_segments: Integer[np.ndarray, " n"],
    *,
    counts: node_pairs.Overlap | None = None,
) -> dict[str, float | int]:
    """All figures of BANIS's evaluation of a segmentation by skeletons, and em_erl's.

    Args:
      skeletons: the ground truth.
      node_segments: predicted segment of each node (the value at its voxel, without
        interpolation), 0 = background.
      counts: what `node_pairs.overlap` made of the two, where the caller has it already.

    Returns:
      erl, max_erl [nm]; nerl. nerl_5, nerl_20, nerl_100, nerl_inf: pairs of skeleton
      and segment with at most so many nodes cause no merger. nerl_em_erl_50: as
      `Overlap.merging_em_erl`; not comparable with the leaderboard. nerl_mean, nerl_sd,
      nerl_share: see `spread.spread`. voi_split, voi_merge, voi_sum [bit], rand_split,
      rand_merge: over nodes of id other than 0.
      n_mergers: skeletons in shared segments, summed over these segments, background
      among them; n_non0_mergers: without it; n_splits: split edges; n_correct,
      n_merged, n_omitted: the others. n_nodes, n_edges, n_skeletons, n_segments
      (without background). coverage: share of nodes that lie on background, as the
      LICONN notes of PyTC count it (0 is best); coverage_length: share of length
      whose edge has an end on background.

    Raises:
      InputError: as `node_pairs.overlap`, or no skeleton has an id other than 0.
    """
    counts = node_pairs.overlap(skeletons, node_segments) if counts is None else counts
    lengths = counts.lengths_nm
    total = lengths.sum()

    ids = skeletons.node_id[counts.edges]
    within = ids[:, 0] == ids[:, 1]
    own = own_squares(skeletons, counts)
    max_erl = float(own.sum() / total)
    if not max_erl > 0:
        raise InputError(
            f"{skeletons.source} has no edge between nodes of one id other than 0, so "
            "NERL is undefined; wanted the segment of each node as its id"
        )

    def erl(merging: Bool[np.ndarray, " p"]) -> float:
        return float((node_pairs.kept_lengths_nm(counts, merging) ** 2).sum() / total)

    result: dict[str, float | int] = {"erl": erl(counts.merging()), "max_erl": max_erl}
    result["nerl"] = result["erl"] / max_erl
    result |= spread.spread(kept_squares(counts), own)
    for name, size in IGNORED_MERGER_SIZES.items():
        result[f"nerl_{name}"] = erl(counts.merging(size)) / max_erl
    result["nerl_em_erl_50"] = _nerl_em_erl(counts, within)
    result |= _voi(counts)

    status = node_pairs.edge_status(counts)
    shared = counts.shared_pairs()
    background = counts.background_pairs()
    number = dict(
        zip(node_pairs.STATUS_NAMES, np.bincount(status, minlength=4).tolist())
    )
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
        "coverage_length": float(lengths[status == node_pairs.OMITTED].sum() / total),
    }


def kept_squares(counts: node_pairs.Overlap) -> Float64[np.ndarray, " k"]:
    """Of each skeleton, the sum of its squared correct lengths, by segment [nm^2]."""
    kept = node_pairs.kept_lengths_nm(counts, counts.merging())
    return np.bincount(
        counts.pair_skeleton, kept**2, minlength=len(counts.skeleton_ids)
    )


def own_squares(
    skeletons: Skeletons, counts: node_pairs.Overlap
) -> Float64[np.ndarray, " k"]:
    """The squared length of each skeleton [nm^2], as the truth itself keeps it: edges
    between two skeletons do not count, and id 0 is background there too."""
    ids = skeletons.node_id[counts.edges]
    own = np.where((ids[:, 0] == ids[:, 1]) & (ids[:, 0] != 0), counts.lengths_nm, 0.0)
    of_skeleton = counts.pair_skeleton[counts.edge_pair]
    return np.bincount(of_skeleton, own, minlength=len(counts.skeleton_ids)) ** 2


def _nerl_em_erl(counts: node_pairs.Overlap, within: Bool[np.ndarray, " e"]) -> float:
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
    correct = counts.edge_status == node_pairs.CORRECT
    kept = np.bincount(
        counts.edge_pair[correct], lengths[correct], minlength=len(counts.pair_nodes)
    )
    kept[counts.merging_em_erl()] = 0
    return float((kept**2).sum() / (of_skeleton**2).sum())


def _voi(counts: node_pairs.Overlap) -> dict[str, float]:
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
