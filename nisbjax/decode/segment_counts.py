"""What a segmentation consists of: how many segments, how large, how much background.

Gathered while labels are made, so that no pass over the volume is needed for it (neither
PyTC nor BANIS reports any of this).
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int, UInt

from nisbjax.decode import numbering
from nisbjax.errors import InputError
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume
from nisbjax.store.zarr_output import write_attributes


@dataclasses.dataclass
class SegmentCounts:
    """Sums over the segments of one volume; sizes are in voxels.

    Attributes:
      voxels: of the volume.
      segments: how many.
      labelled: voxels inside of segments.
      largest: voxels of the largest segment.
      by_decade: segments of 1-9 voxels, 10-99, 100-999, ...
      nonfinite: affinities that are NaN or infinite, of all that were read.
    """

    voxels: int
    segments: int = 0
    labelled: int = 0
    largest: int = 0
    by_decade: list[int] = dataclasses.field(default_factory=list)
    nonfinite: int = 0

    def __str__(self) -> str:
        background = 100 * self.attributes()["background"]
        return f"{self.segments} segments, {background:.1f} % background"

    def add(self, sizes: Int[np.ndarray, " n"]) -> None:
        """Counts segments of these sizes."""
        if not len(sizes):
            return
        self.segments += len(sizes)
        self.labelled += int(sizes.sum())
        self.largest = max(self.largest, int(sizes.max()))
        decade = np.searchsorted(10 ** np.arange(1, 19), sizes, side="right")
        counts = np.bincount(decade, minlength=len(self.by_decade))
        counts[: len(self.by_decade)] += np.array(self.by_decade, np.int64)
        self.by_decade = counts.tolist()

    def merge(self, other: "SegmentCounts") -> None:
        """Adds the segments that another counted."""
        self.segments += other.segments
        self.labelled += other.labelled
        self.largest = max(self.largest, other.largest)
        longer, shorter = sorted((self.by_decade, other.by_decade), key=len)[::-1]
        more = [*shorter, *[0] * (len(longer) - len(shorter))]
        self.by_decade = [a + b for a, b in zip(longer, more, strict=True)]

    @classmethod
    def of_facts(cls, manifest: Manifest) -> "SegmentCounts":
        """What a finished segmentation's manifest says.

        Raises:
          InputError: it says something else.
        """
        try:
            found = cls(**manifest.finish_facts)
            found.attributes()
        except (TypeError, ValueError, ArithmeticError):
            raise InputError(
                f"{manifest.path} has no statistics in its last line; remove "
                f"{manifest.artifact} and decode again"
            ) from None
        return found

    @classmethod
    def of_finished(cls, manifest: Manifest, output: Volume) -> "SegmentCounts":
        """As `of_facts`; they are added to the attributes again where those were lost.

        Raises:
          InputError: the manifest says something else.
        """
        found = cls.of_facts(manifest)
        path = pathlib.Path(output.source) / ".zattrs"
        if path.is_file() and "segments" not in json.loads(path.read_bytes()):
            found.note(output)
        return found

    def note(self, output: Volume) -> None:
        """Adds these figures to the attributes of a segmentation on disk.

        Before its manifest says that it is finished, so that no finished one lacks them.
        """
        if pathlib.Path(output.source).is_dir():
            attributes = {**output.attributes, **self.attributes()}
            write_attributes(output.source, attributes)

    def attributes(self) -> dict[str, Any]:
        """As they stand beside the labels."""
        return {
            "segments": self.segments,
            "background": round(1 - self.labelled / max(self.voxels, 1), 6),
            "largest_segment_voxels": self.largest,
            "mean_segment_voxels": round(self.labelled / max(self.segments, 1), 2),
            "segments_by_decade_of_voxels": self.by_decade,
            **({"nonfinite_affinities": self.nonfinite} if self.nonfinite else {}),
        }


def without_small(labels: UInt[np.ndarray, "x y z"], min_size: int) -> SegmentCounts:
    """Numbers the segments of at least `min_size` voxels again, in place, and counts them.

    Args:
      labels: 1..N in C order of their first voxels; segments below `min_size` become 0.
      min_size: in voxels; 0 and 1 leave the labels as they are.
    """
    count = int(labels.max(initial=0))
    first, size = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    flat = labels.reshape(-1)
    if flat.size:
        numbering.measure(flat, first, size)
    kept = size >= max(min_size, 1)
    kept[0] = False
    if flat.size and not kept[1:].all():
        table = np.where(kept, np.cumsum(kept), 0).astype(labels.dtype)
        inside = numbering.relabel(flat, table, flat)
        assert inside  # `count` is the highest
    counts = SegmentCounts(labels.size)
    counts.add(size[kept])
    return counts
