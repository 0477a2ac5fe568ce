"""Scores against dense labels: adapted Rand error, VOI, accuracy of instances.

Adapted Rand as the SNEMI3D challenge's script computes it (Arganda-Carreras et al. 2015,
doi:10.3389/fnana.2015.00142), VOI as gala; scikit-image's `adapted_rand_error` treats
predicted background otherwise. PyTC loads both volumes and passes ids through float32;
here a table of overlaps is summed box by box, with ids as they are.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid, fit_box
from nisbjax.parallel.cluster import map_boxes
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.unlabeled import DEFAULT, is_unlabeled
from nisbjax.store.volume import Volume


@dataclass(frozen=True, eq=False)
class Contingency:
    """Voxels shared by each pair of ground-truth label and segment; p pairs.

    Attributes:
      truth: label of each pair.
      segment: segment of each pair.
      voxels: how many voxels hold both.
    """

    truth: Integer[np.ndarray, " p"]
    segment: Integer[np.ndarray, " p"]
    voxels: Int64[np.ndarray, " p"]


def contingency(
    truth: Integer[np.ndarray, "x y z"],
    segmentation: Integer[np.ndarray, "x y z"],
    unlabeled: str = DEFAULT,
) -> Contingency:
    """Counts overlaps of two label arrays of one shape, where the truth is labeled.

    Args:
      truth: dense labels.
      segmentation: of the same shape.
      unlabeled: values of the truth that say nothing, see `unlabeled.parse_codes`.
    """
    missing = is_unlabeled(truth, unlabeled)
    if missing is not None:
        truth, segmentation = truth[~missing], segmentation[~missing]
    return _tabulate(truth.ravel(), segmentation.ravel(), None)


def contingency_of_volumes(
    truth: Volume,
    segmentation: Volume,
    *,
    unlabeled: str = DEFAULT,
    memory_gb: float = 4.0,
    workers: int = 0,
) -> Contingency:
    """Counts overlaps of two volumes, box by box.

    Args:
      truth: dense labels [x y z].
      segmentation: of the same shape.
      unlabeled: as `contingency`.
      memory_gb: for the boxes that are read at once.
      workers: threads; 0 for one for each core.

    Raises:
      InputError: the shapes differ, or two chunks of one take more memory.
    """
    if truth.shape != segmentation.shape:
        raise InputError(
            f"labels {truth.source} have shape {truth.shape}, the segmentation "
            f"{segmentation.source} {segmentation.shape}; wanted the same volume"
        )
    for volume in (truth, segmentation):
        require_chunks_fit(volume, memory_gb)
    # both arrays, their inverse indices, the key and its sorted copy; 8 boxes at once
    box_shape = fit_box(
        segmentation.spatial_shape,
        segmentation.spatial_chunks,
        48.0,
        memory_gb * 2**30 / 8,
    )

    def count(box: Box) -> Contingency:
        return contingency(truth.read(box), segmentation.read(box), unlabeled)

    total: Contingency | None = None
    boxes = box_grid(segmentation.spatial_shape, box_shape)
    for part in map_boxes(
        count, boxes, workers=min(workers or 4, 4), description="overlaps"
    ):
        total = part if total is None else _add(total, part)
    assert total is not None  # a volume is never empty
    return total


def adapted_rand(table: Contingency) -> dict[str, float]:
    """Adapted Rand error, precision and recall, SNEMI3D's form.

    Voxels of label 0 are ignored; predicted background counts as singletons, of which
    the form keeps a share c / n (c such voxels of n in all, label 0 included).

    Raises:
      InputError: no voxel has a label other than 0.
    """
    known = table.truth != 0
    _require_labels(known)
    n = int(table.voxels.sum())
    voxels = table.voxels[known].astype(np.float64)
    found = table.segment[known] != 0
    of_label = _sum_by(table.truth[known], voxels)
    of_segment = _sum_by(table.segment[known][found], voxels[found])
    background = voxels[~found].sum() / n
    joint = (voxels[found] ** 2).sum() + background
    precision = float(joint / ((of_segment**2).sum() + background))
    recall = float(joint / (of_label**2).sum())
    error = 1 - 2 * precision * recall / (precision + recall)
    return {
        "adapted_rand_error": error,
        "adapted_rand_precision": precision,
        "adapted_rand_recall": recall,
    }


def voi(table: Contingency) -> dict[str, float]:
    """Variation of information [bit] over voxels of label other than 0.

    Segment 0 counts as an ordinary segment, as in gala.

    Raises:
      InputError: no voxel has a label other than 0.
    """
    known = table.truth != 0
    _require_labels(known)
    voxels = table.voxels[known].astype(np.float64)
    together = _entropy(voxels)
    split = together - _entropy(_sum_by(table.truth[known], voxels))
    merge = together - _entropy(_sum_by(table.segment[known], voxels))
    return {"voi_split": split, "voi_merge": merge, "voi_sum": split + merge}


def instance_accuracy(table: Contingency, iou: float = 0.5) -> dict[str, float]:
    """Matched labels and segments at an intersection over union, as StarDist counts.

    Returns:
      instance_accuracy = tp / (tp + fp + fn), instance_precision, instance_recall,
      instance_f1.

    Raises:
      InputError: no voxel has a label other than 0.
    """
    _require_labels(table.truth != 0)
    voxels = table.voxels.astype(np.float64)
    labels, label = np.unique(table.truth, return_inverse=True)
    segments, segment = np.unique(table.segment, return_inverse=True)
    union = (
        np.bincount(label, voxels)[label] + np.bincount(segment, voxels)[segment]
    ) - voxels
    matches = (table.truth != 0) & (table.segment != 0) & (voxels / union >= iou)
    graph = coo_array(
        (np.ones(matches.sum(), np.int8), (label[matches], segment[matches])),
        shape=(len(labels), len(segments)),
    )
    # several segments reach an IoU of exactly 0.5 with one label; one of them counts
    matched = maximum_bipartite_matching(graph.tocsr(), perm_type="column")
    tp = int(np.count_nonzero(matched >= 0))
    n_labels, n_segments = np.count_nonzero(labels), np.count_nonzero(segments)
    return {
        "instance_accuracy": tp / (n_labels + n_segments - tp),
        "instance_precision": tp / max(n_segments, 1),
        "instance_recall": tp / n_labels,
        "instance_f1": 2 * tp / (n_labels + n_segments),
    }


# Metric -> what computes it.
FUNCTIONS = {
    "adapted_rand": adapted_rand,
    "voi": voi,
    "instance_accuracy": instance_accuracy,
}


def _require_labels(known: np.ndarray) -> None:
    if not known.any():
        raise InputError(
            "the dense labels are 0 everywhere, so Rand and VOI are undefined; give "
            "the ground truth as --config.evaluate.label=FILE"
        )


def _tabulate(
    truth: np.ndarray, segment: np.ndarray, voxels: np.ndarray | None
) -> Contingency:
    """One row for each distinct pair; ids of any integer type stay as they are."""
    labels, label = np.unique(truth, return_inverse=True)
    segments, piece = np.unique(segment, return_inverse=True)
    key = label * np.int64(len(segments)) + piece
    if voxels is None:
        pairs, total = np.unique(key, return_counts=True)
    else:
        pairs, row = np.unique(key, return_inverse=True)
        total = np.zeros(len(pairs), np.int64)
        np.add.at(total, row, voxels)
    return Contingency(
        labels[pairs // len(segments)],
        segments[pairs % len(segments)],
        total.astype(np.int64),
    )


def _add(a: Contingency, b: Contingency) -> Contingency:
    return _tabulate(
        np.concatenate([a.truth, b.truth]),
        np.concatenate([a.segment, b.segment]),
        np.concatenate([a.voxels, b.voxels]),
    )


def _sum_by(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.bincount(np.unique(ids, return_inverse=True)[1], values)


def _entropy(counts: np.ndarray) -> float:
    """Entropy of a histogram [bit]."""
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())
