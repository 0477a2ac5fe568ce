"""What was read, in two lines for a pair of volumes, so that a wrong file is seen at once.

PyTC prints shapes, BANIS nothing. Counts are of three crops, which a start can wait for.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nisbjax.data.nisb import Pair
from nisbjax.data.orientation import crops
from nisbjax.store.description import file_lines
from nisbjax.store.unlabeled import to_int32


def lines(pair: Pair, unlabeled: str) -> Iterator[str]:
    """An image in two lines, its path in the first, then its labels likewise.

    Args:
      pair: of which three crops are read.
      unlabeled: values that nobody vouches for, see `unlabeled.parse_codes`.
    """
    seen = look(pair, unlabeled)
    yield f"{file_lines(pair.image)}, grey {seen.low:.6g} to {seen.high:.6g}"
    yield f"{file_lines(pair.labels)}\n{seen} in 3 crops"


class Look(NamedTuple):
    """What three crops of a pair hold."""

    low: float  # grey values
    high: float
    objects: int
    background: float  # share of voxels
    unlabeled: float

    def __str__(self) -> str:
        return (
            f"{self.objects} labels, {self.background:.0%} background, "
            f"{self.unlabeled:.0%} unlabeled"
        )


def look(pair: Pair, unlabeled: str) -> Look:
    """Reads three crops; arguments as of `lines`."""
    boxes = list(crops(pair.labels.spatial_shape))
    grey = np.concatenate([pair.image.read(box).ravel() for box in boxes])
    known = np.concatenate(
        [to_int32(pair.labels.read(box), unlabeled).ravel() for box in boxes]
    )
    return Look(
        float(np.nanmin(grey)),
        float(np.nanmax(grey)),
        len(np.unique(known[known > 0])),
        float(np.mean(known == 0)),
        float(np.mean(known < 0)),
    )
