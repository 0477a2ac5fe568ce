"""Colours of labels: an id has its own, and segments those of the truth that they overlap.

BANIS and PyTC draw colours at random, so that truth and segmentation cannot be compared by eye.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

_DARKEST = 55  # background is black, and nothing comes near
_APART = 60.0  # between colours that are told apart, at least
_DRAWS = 32


def label_colours(labels: Int[np.ndarray, "..."]) -> UInt8[np.ndarray, "... 3"]:
    """A colour for each id, the same in every picture; background is black."""
    ids = labels.astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = (ids + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
    channels = [(mixed >> np.uint64(shift)) & np.uint64(0xFF) for shift in (8, 24, 40)]
    colours = _DARKEST + np.stack(channels, axis=-1) * 200 // 255
    return np.where(labels[..., None] == 0, 0, colours).astype(np.uint8)


def matched_colours(
    planes: Sequence[Int[np.ndarray, "..."]], truth: Sequence[Int[np.ndarray, "..."]]
) -> list[UInt8[np.ndarray, "... 3"]]:
    """Colours of a segmentation beside those of the truth.

    A segment takes the colour of the object with which it shares most voxels, over all of the
    planes. Where several segments share most with one object, the one that shares more has its
    colour, so that splits are seen; all others have colours that no object has.

    Args:
      planes: ids of the segmentation, 0 for background.
      truth: ids in the same planes, 0 and less for what is none.
    """
    segments = np.unique(np.concatenate([plane.ravel() for plane in planes]))
    objects = np.unique(np.concatenate([plane.ravel() for plane in truth]))
    taken = label_colours(objects[objects != 0])
    matched = _matched(planes, truth)
    colours = np.stack(
        [
            label_colours(np.array(matched[segment]))
            if segment in matched
            else _own_colour(int(segment), taken)
            for segment in segments.tolist()
        ]
    )
    return [colours[np.searchsorted(segments, plane)] for plane in planes]


def _matched(
    planes: Sequence[Int[np.ndarray, "..."]], truth: Sequence[Int[np.ndarray, "..."]]
) -> dict[int, int]:
    """Segment -> the object whose colour it takes."""
    of_segment, of_object = (
        np.concatenate([plane.ravel() for plane in side]) for side in (planes, truth)
    )
    shared = (of_segment != 0) & (of_object > 0)
    segments, row = np.unique(of_segment[shared], return_inverse=True)
    objects, column = np.unique(of_object[shared], return_inverse=True)
    # One number for a pair: sorting rows of two takes seconds.
    pairs, counts = np.unique(row * len(objects) + column, return_counts=True)
    best: dict[int, int] = {}
    given: dict[int, int] = {}
    # The most voxels first; of a segment only the pair with its largest object counts.
    for row in np.argsort(-counts, kind="stable").tolist():
        segment, of = divmod(int(pairs[row]), len(objects))
        if segment in best:
            continue
        best[segment] = of
        if of not in given:
            given[of] = segment
    return {int(segments[row]): int(objects[of]) for of, row in given.items()}


def _own_colour(
    segment: int, taken: UInt8[np.ndarray, "n 3"]
) -> UInt8[np.ndarray, "3"]:
    """A segment's colour, drawn again until it is apart from all that are taken."""
    if segment == 0 or not len(taken):
        return label_colours(np.array(segment))
    # Ids of segments and objects are alike small numbers: others are drawn from.
    drawn = label_colours((np.arange(_DRAWS) << 40) + (1 << 39) + segment)
    gaps = np.linalg.norm(drawn[:, None].astype(float) - taken[None], axis=2).min(
        axis=1
    )
    apart = np.flatnonzero(gaps >= _APART)
    return drawn[apart[0] if len(apart) else int(gaps.argmax())]
