"""Affinities that are NaN or infinite: counted wherever they are read, and said aloud.

One of them is no reason to refuse a volume, and no decoder can tell it from an edge or from
none: NaN and -Inf are below every threshold, Inf is above. PyTC and BANIS compare them and
say nothing; here the log and the segmentation's attributes say how many there are.
"""

import dataclasses

import numpy as np
from absl import logging

from nisbjax.typing import Affinities, Triple


@dataclasses.dataclass(frozen=True)
class Nonfinite:
    """What of some affinities is no number.

    Attributes:
      count: how many, over all channels.
      first: the voxel of one of them; of no meaning where there is none.
    """

    count: int = 0
    first: Triple = (0, 0, 0)

    @classmethod
    def of(cls, affinities: Affinities, start: Triple = (0, 0, 0)) -> "Nonfinite":
        """Looks at affinities, of which the first voxel is `start`.

        As unsigned integers, all finite numbers that are not negative lie below infinity.
        So the largest settles it for whatever a sigmoid made, at the speed of memory.
        """
        if affinities.dtype.kind != "f" or not affinities.size:
            return cls()
        bits = affinities.view(f"u{affinities.dtype.itemsize}")
        infinity = np.array(np.inf, affinities.dtype).view(bits.dtype)
        if bits.max() < infinity:
            return cls()
        planes = (~np.isfinite(affinities[:, x]) for x in range(affinities.shape[1]))
        counts = np.array([np.count_nonzero(plane) for plane in planes])
        if not counts.any():  # negative ones
            return cls()
        x = int(np.argmax(counts > 0))
        y, z = np.argwhere((~np.isfinite(affinities[:, x])).any(0))[0].tolist()
        return cls(int(counts.sum()), (start[0] + x, start[1] + y, start[2] + z))

    def __add__(self, other: "Nonfinite") -> "Nonfinite":
        """Of both; the first voxel is that of the former, if it has one."""
        first = self.first if self.count else other.first
        return Nonfinite(self.count + other.count, first)

    def warn(self, source: str) -> None:
        """Says so in the log, where there are any.

        Args:
          source: the file that holds them.
        """
        if self.count:
            logging.warning(
                "%s: %d affinities are NaN or infinite, one of them at voxel %s; NaN and "
                "-Inf count as no edge, Inf as one",
                source,
                self.count,
                self.first,
            )
