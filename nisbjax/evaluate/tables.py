"""What stands behind a NERL: each skeleton, the worst mergers, the worst splits.

PyTC keeps one npz of per-skeleton ERL and a separate script for error lists; here one
table per question, with voxel positions to jump to, from the same counted pairs.
"""

import csv
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from nisbjax.artifacts import VolumeDir
from nisbjax.evaluate import node_pairs, oracles
from nisbjax.skeletons import Skeletons
from nisbjax.store import files

Table = dict[str, np.ndarray]

# Ending of each table -> what it is called in the report.
NAMES = {
    "_nerl_per_gt_erl.npz": "Per-GT ERL File",
    "_edges.npz": "Per-Edge File",
    "_skeletons.npz": "Per-Skeleton File",
    "_skeletons.csv": "Per-Skeleton Table",
    "_mergers.csv": "Worst Mergers",
    "_splits.csv": "Worst Splits",
}


def write(
    out: VolumeDir, segmentation: Path, skeletons: Skeletons, counts: node_pairs.Overlap
) -> dict[str, str]:
    """Writes all tables of an evaluation.

    Args:
      out: folder of the volume.
      segmentation: its path; only its name counts.
      skeletons: of the volume.
      counts: their nodes in the segmentation.

    Returns:
      Labels of the tables in the report, and their paths.
    """
    of_skeleton = per_skeleton(skeletons, counts)
    # name and arrays as PyTC writes them
    per_gt = {
        "gt_segment_id": of_skeleton["skeleton"],
        "erl": np.stack([of_skeleton["erl_nm"], of_skeleton["length_nm"]], axis=1),
    }
    edges = {
        "edges": skeletons.edges,
        "status": node_pairs.edge_status(counts),
        "status_names": np.array(node_pairs.STATUS_NAMES),
        "length_nm": counts.lengths_nm,
        "node_segments": counts.node_segments,
        "index_position": skeletons.index_position,
    }
    paths: dict[str, str] = {}
    written = (per_gt, edges, of_skeleton, of_skeleton)
    written += worst_mergers(skeletons, counts), worst_splits(skeletons, counts)
    for (suffix, label), table in zip(NAMES.items(), written, strict=True):
        path = out.evaluation(segmentation, suffix)
        write_table = write_csv if suffix.endswith(".csv") else write_npz
        write_table(table, path)
        paths[label] = str(path)
    return paths


def per_skeleton(skeletons: Skeletons, counts: node_pairs.Overlap) -> Table:
    """One row for each skeleton, in ascending order of its id; lengths in nm.

    Returns:
      skeleton, n_nodes, n_segments (without background), length_nm, erl_nm, nerl
      (erl_nm / length_nm, nan without length), correct_nm, split_nm, merged_nm,
      omitted_nm, coverage (share of nodes on background), main_segment (most nodes,
      background aside; 0 = none), shares_segment (with another skeleton).
    """
    n = len(counts.skeleton_ids)
    lengths = skeleton_lengths_nm(skeletons)
    kept = node_pairs.kept_lengths_nm(counts, counts.merging())
    of_pair = counts.pair_skeleton
    squares = np.bincount(of_pair, kept**2, minlength=n)
    measured = lengths > 0
    erl = np.divide(squares, lengths, out=np.zeros(n), where=measured)
    nodes = np.bincount(of_pair, counts.pair_nodes, minlength=n)
    background = counts.background_pairs()
    dark = np.bincount(of_pair[background], counts.pair_nodes[background], minlength=n)
    shared = counts.shared_pairs() & ~background
    table: Table = {
        "skeleton": counts.skeleton_ids,
        "n_nodes": nodes.astype(np.int64),
        "n_segments": np.bincount(of_pair[~background], minlength=n),
        "length_nm": lengths,
        "erl_nm": erl,
        "nerl": np.divide(erl, lengths, out=np.full(n, np.nan), where=measured),
    }
    status = node_pairs.edge_status(counts)
    edge_skeleton = of_pair[counts.edge_pair]
    for value, name in enumerate(node_pairs.STATUS_NAMES):
        chosen = status == value
        table[f"{name}_nm"] = np.bincount(
            edge_skeleton[chosen], counts.lengths_nm[chosen], minlength=n
        ).astype(np.float64)
    table["coverage"] = dark / nodes
    main = oracles.main_segments(counts)
    table["main_segment"] = np.where(main < 0, 0, counts.segment_ids[main])
    table["shares_segment"] = np.bincount(of_pair[shared], minlength=n) > 0
    return table


def worst_mergers(
    skeletons: Skeletons, counts: node_pairs.Overlap, most: int = 100
) -> Table:
    """Segments that hold several skeletons, those that cost most length first.

    Returns:
      segment, n_skeletons, lost_nm (length of its merged edges), skeleton_a and
      skeleton_b (the two with most nodes in it), x, y, z: the voxel of a node of
      skeleton_b that lies nearest to one of skeleton_a in this segment.
    """
    shared = counts.shared_pairs() & ~counts.background_pairs()
    lost = np.bincount(
        counts.pair_segment[counts.edge_pair],
        np.where(
            node_pairs.edge_status(counts) == node_pairs.MERGED, counts.lengths_nm, 0.0
        ),
        minlength=len(counts.segment_ids),
    )
    holders = np.bincount(
        counts.pair_segment[shared], minlength=len(counts.segment_ids)
    )
    rows = np.flatnonzero(holders)
    rows = rows[np.argsort(-lost[rows], kind="stable")][:most]

    by_pair = np.argsort(counts.node_pair, kind="stable")
    first = np.searchsorted(
        counts.node_pair[by_pair], np.arange(len(counts.pair_nodes) + 1)
    )
    by_segment = np.argsort(counts.pair_segment, kind="stable")
    first_pair = np.searchsorted(
        counts.pair_segment[by_segment], np.arange(len(counts.segment_ids) + 1)
    )
    largest, places = [], []
    for row in rows:
        pairs = by_segment[first_pair[row] : first_pair[row + 1]]
        a, b = pairs[np.argsort(-counts.pair_nodes[pairs], kind="stable")][:2]
        largest.append(counts.skeleton_ids[counts.pair_skeleton[[a, b]]])
        nodes_a, nodes_b = (by_pair[first[p] : first[p + 1]] for p in (a, b))
        places.append(_nearest(skeletons, nodes_a, nodes_b))
    largest = np.array(largest, np.int64).reshape(-1, 2)
    places = np.array(places, np.int64).reshape(-1, 3)
    return {
        "segment": counts.segment_ids[rows],
        "n_skeletons": holders[rows],
        "lost_nm": lost[rows],
        "skeleton_a": largest[:, 0],
        "skeleton_b": largest[:, 1],
    } | dict(zip("xyz", places.T, strict=True))


def worst_splits(
    skeletons: Skeletons, counts: node_pairs.Overlap, most: int = 100
) -> Table:
    """Pairs of segments that one skeleton passes between, the costliest first.

    Returns:
      skeleton, segment_a, segment_b, cut_nm (length of the skeleton in the smaller of
      the two, which joining them would win), x, y, z: the voxel of the first node of
      the split edge.
    """
    correct = counts.edge_status == node_pairs.CORRECT
    inside = np.bincount(
        counts.edge_pair[correct],
        counts.lengths_nm[correct],
        minlength=len(counts.pair_nodes),
    )
    split = np.flatnonzero(counts.edge_status == node_pairs.SPLIT)
    ends = counts.node_pair[counts.edges[split]]
    same = counts.pair_skeleton[ends[:, 0]] == counts.pair_skeleton[ends[:, 1]]
    split, ends = split[same], np.sort(ends[same], axis=1)
    _, unique = np.unique(ends, axis=0, return_index=True)
    split, ends = split[unique], ends[unique]
    # bincount of nothing counts in integers.
    cut = inside.astype(np.float64)[ends].min(axis=1, initial=np.inf)
    worst = np.argsort(-cut, kind="stable")[:most]
    split, ends = split[worst], ends[worst]
    place = skeletons.index_position[counts.edges[split, 0]]
    return {
        "skeleton": counts.skeleton_ids[counts.pair_skeleton[ends[:, 0]]],
        "segment_a": counts.segment_ids[counts.pair_segment[ends[:, 0]]],
        "segment_b": counts.segment_ids[counts.pair_segment[ends[:, 1]]],
        "cut_nm": cut[worst],
    } | dict(zip("xyz", place.T, strict=True))


def write_csv(table: Table, path: str | os.PathLike[str]) -> None:
    """Writes a table with its header; floats with six digits."""
    with (
        files.replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(
                f"{v:.6g}" if isinstance(v, float) else v.item() for v in row
            )


def write_npz(table: Table, path: str | os.PathLike[str]) -> None:
    """Writes arrays, compressed, renamed into place when complete."""
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **table)


def _nearest(
    skeletons: Skeletons, nodes_a: np.ndarray, nodes_b: np.ndarray
) -> np.ndarray:
    """Voxel of the node of b that is nearest to any of a, from a sample of both."""
    sample_a, sample_b = (x[:: len(x) // 1000 + 1] for x in (nodes_a, nodes_b))
    gap = np.linalg.norm(
        skeletons.position_nm[sample_b][:, None]
        - skeletons.position_nm[sample_a][None],
        axis=2,
    )
    nearest = sample_b[gap.min(axis=1).argmin()]
    return skeletons.index_position[nearest]


def skeleton_lengths_nm(skeletons: Skeletons) -> Float64[np.ndarray, " k"]:
    """Length of the edges of each skeleton [nm], in ascending order of its id."""
    skeleton = np.unique(skeletons.node_id, return_inverse=True)[1]
    first = skeleton[skeletons.edges[:, 0]]
    return np.bincount(
        first, skeletons.edge_lengths_nm, minlength=int(skeleton.max(initial=-1)) + 1
    )
