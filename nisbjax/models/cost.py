"""What a forward pass of MedNeXt costs: its products, counted from its sizes.

The 1 x 1 x 1 convolutions of every block; depthwise sums are a tenth of them. nnU-Net plans a
network by the memory it takes, and says nothing of time.
"""

import math
from collections.abc import Mapping
from typing import Any

from nisbjax.models.mednext import LEVELS, SIZES
from nisbjax.typing import Triple


def forward_flop(arguments: Mapping[str, Any], shape: Triple) -> float:
    """Floating-point operations for one image.

    Args:
      arguments: of `MedNeXt`, at least `size` and `channels`.
      shape: of the image, in voxels.
    """
    expansions, counts = SIZES[arguments["size"]]
    total = 0.0
    for level in range(LEVELS + 1):
        width = arguments["channels"] << level
        voxels = math.prod(shape) / 8**level
        square = 2 * width**2 * voxels  # of one product, width to width
        for stage in {level, 2 * LEVELS - level}:  # going down and up
            total += 2 * expansions[stage] * counts[stage] * square
        if level < LEVELS:
            # Down: width to 2 width at an eighth of the voxels; up: twice the width to it.
            total += 3 * expansions[level + 1] * square / 8
            total += 6 * expansions[2 * LEVELS - level] * square
    return total
