"""Where a prediction begins and ends to be usable along z.

A plane passes if the mean of channels 0-2, each, is at least the interior's mean less a
drift (PyTC `decoding/qc/affinity.py`, which asks it of every channel that there is). PyTC
searches only the first and last 30 planes and returns 30 and Z - 30 where none of them passes, without a word; here
that is called saturated and, with `auto_extend`, the search goes on until a plane passes.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64

from nisbjax.offsets import SHORT_RANGE
from nisbjax.qc.statistics import PlaneSums


@dataclasses.dataclass(frozen=True)
class Cuts:
    """Planes low_z <= z < high_z are kept.

    Attributes:
      low_z, high_z: first plane kept, first plane behind.
      reference_low_z, reference_high_z: what PyTC's search of `refine_window` planes says,
        over all channels.
      saturated_low, saturated_high: whether no plane of that search window passed.
      interior_mean: of each channel, over sampled planes away from both ends.
      cutoff: of each channel, interior_mean - drift_thresh.
      bad_inside: planes between the cuts that do not pass.
      sampled: planes of the reference's statistics, every `z_stride`-th.
    """

    low_z: int
    high_z: int
    reference_low_z: int
    reference_high_z: int
    saturated_low: bool
    saturated_high: bool
    interior_mean: tuple[float, ...]
    cutoff: tuple[float, ...]
    bad_inside: tuple[int, ...]
    sampled: tuple[int, ...]

    @property
    def usable(self) -> bool:
        return self.low_z < self.high_z


def find_cuts(
    planes: PlaneSums,
    *,
    z_stride: int = 10,
    k_edge: int = 20,
    refine_window: int = 30,
    drift_thresh: float = 0.05,
    auto_extend: bool = True,
) -> Cuts:
    """Finds both cuts from the means of all planes.

    Args:
      planes: sums of every plane.
      z_stride: between the planes that make the interior's mean.
      k_edge: of them left out at each end, where there are more than 2 k_edge + 1.
      refine_window: planes searched at each end.
      drift_thresh: how far below the interior's mean a plane may be.
      auto_extend: search on where no plane of the window passes. If no plane of the whole
        volume passes, nothing is kept (low_z = high_z).
    """
    mean = planes.mean
    depth = mean.shape[1]
    sampled = mean[:, ::z_stride]
    enough = sampled.shape[1] > 2 * k_edge + 1
    interior = sampled[:, k_edge : sampled.shape[1] - k_edge] if enough else sampled
    interior_mean = _mean(interior)
    cutoff = interior_mean - drift_thresh
    # A plane without a finite value has the mean NaN and does not pass.
    # The last planes of a long-range channel have no partner: neighbours' edges decide.
    above = mean >= cutoff[:, None]
    passes: np.ndarray = np.all(above[: len(SHORT_RANGE)], axis=0)
    low, high, low_z, high_z = _search(passes, refine_window)
    _, _, reference_low, reference_high = _search(np.all(above, axis=0), refine_window)
    if auto_extend:
        first, last = _first(passes), _first(passes[::-1])
        low_z = 0 if first is None else first
        high_z = 0 if last is None else depth - last
    return Cuts(
        low_z,
        high_z,
        reference_low,
        reference_high,
        low is None,
        high is None,
        tuple(map(float, interior_mean)),
        tuple(map(float, cutoff)),
        tuple(z for z in range(low_z, high_z) if not passes[z]),
        tuple(range(0, depth, z_stride)),
    )


def _mean(values: Float64[np.ndarray, "c s"]) -> Float64[np.ndarray, " c"]:
    """Over finite entries: planes that are all NaN or Inf say nothing of the interior."""
    finite = np.isfinite(values)
    count = finite.sum(1)
    total = np.where(finite, values, 0.0).sum(1)
    return np.asarray(total / np.where(count, count, np.nan))


def _search(
    passes: Bool[np.ndarray, " z"], planes: int
) -> tuple[int | None, int | None, int, int]:
    """First planes that pass from both ends (None among so many), and the cuts there."""
    low, high = _first(passes[:planes]), _first(passes[::-1][:planes])
    depth = len(passes)
    window = min(planes, depth)
    return (
        low,
        high,
        window if low is None else low,
        depth - (window if high is None else high),
    )


def _first(passes: Bool[np.ndarray, " n"]) -> int | None:
    found = np.flatnonzero(passes)
    return int(found[0]) if found.size else None
