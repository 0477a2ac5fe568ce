"""The scales of a pyramid: by how much each is reduced, and how large its voxels are.

An axis is halved while its voxels are less than twice as long as the shortest side, so that
they become cubes and stay so: 9 x 9 x 30 nm, 18 x 18 x 30, 36 x 36 x 60.
"""

import dataclasses
from collections.abc import Sequence

from nisbjax.typing import Triple


@dataclasses.dataclass(frozen=True)
class Level:
    """One scale of an output.

    Attributes:
      number: 0 for the finest.
      shape: x y z.
      step: voxels of the scale before along x, y and z that become one.
      factors: voxels of the finest scale that become one.
    """

    number: int
    shape: Triple
    step: Triple = (1, 1, 1)
    factors: Triple = (1, 1, 1)


def levels(
    shape: Triple, sizes: Sequence[float | int] | None, count: int
) -> list[Level]:
    """The finest scale and at most `count` coarser ones; fewer where one voxel is left.

    Args:
      shape: of the finest.
      sizes: of its voxels x y z, in any unit; None for cubes.
      count: of coarser ones.
    """
    found = [Level(0, shape)]
    voxel = list(map(float, sizes or (1, 1, 1)))
    for number in range(1, count + 1):
        before = found[-1]
        long = [s for s, n in zip(voxel, before.shape, strict=True) if n > 1]
        if not long:
            break
        steps = [
            2 if n > 1 and size < 2 * min(long) else 1
            for size, n in zip(voxel, before.shape, strict=True)
        ]
        x, y, z = steps
        voxel = [size * s for size, s in zip(voxel, steps, strict=True)]
        sx, sy, sz = (-(-n // s) for n, s in zip(before.shape, steps, strict=True))
        fx, fy, fz = (f * s for f, s in zip(before.factors, steps, strict=True))
        found.append(Level(number, (sx, sy, sz), (x, y, z), (fx, fy, fz)))
    return found
