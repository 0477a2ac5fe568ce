"""Which voxels of a volume may carry edges: a z range and a dark border ring.

LICONN slabs have bad planes at the top and bottom and a dark halo around the border
(PyTC `decoding/qc/affinity.py`, `build_affinity_mask`). The specification is six numbers,
so a decoder needs no mask volume: `keep` computes any box from it. PyTC's fast path skips
the ring where `bg_thresh` is 0 although its mask builder does not; here both are the same.
"""

import dataclasses

import numpy as np
from jaxtyping import Shaped

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.typing import Mask, Triple


@dataclasses.dataclass(frozen=True)
class MaskSpec:
    """Keeps low_z <= z < high_z, without dark voxels of the outer x y ring.

    Attributes:
      shape: of the volume, x y z.
      low_z: first plane kept.
      high_z: first plane behind those kept.
      border_width: of the ring along the x and y faces, in voxels; 0 for none.
      bg_thresh: image intensity at or below which a voxel of the ring is background.
    """

    shape: Triple
    low_z: int
    high_z: int
    border_width: int
    bg_thresh: float

    def __post_init__(self):
        if not 0 <= self.low_z <= self.high_z <= self.shape[2]:
            raise InputError(
                f"mask keeps z from {self.low_z} to {self.high_z}; wanted "
                f"0 <= low_z <= high_z <= {self.shape[2]}, the planes of the volume"
            )
        if self.border_width < 0:
            raise InputError(
                f"mask has border_width {self.border_width}; wanted 0 or more voxels"
            )

    def touches_ring(self, box: Box) -> bool:
        """Whether a box holds voxels of the border ring, so that its image is needed."""
        width = self.border_width
        inner = Box(
            (width, width, 0),
            (self.shape[0] - width, self.shape[1] - width, self.shape[2]),
        )
        return width > 0 and not inner.contains(box)

    def keep(self, box: Box, image: Shaped[np.ndarray, "x y z"] | None) -> Mask:
        """The mask of one box: True where a voxel may carry edges.

        Args:
          box: inside the volume.
          image: intensities of the box (first channel), needed where it touches the ring.

        Raises:
          InputError: the image is missing where it is needed, or has another shape.
        """
        kept = np.zeros(box.shape, bool)
        z0, z1 = box.start[2], box.stop[2]
        first, last = max(self.low_z, z0) - z0, min(self.high_z, z1) - z0
        kept[:, :, max(first, 0) : max(last, 0)] = True
        if not self.touches_ring(box):
            return kept
        if image is None:
            raise InputError(
                f"box {box} of the mask touches the border ring, which needs the source "
                "image; name it with --config.qc.image"
            )
        if image.shape != box.shape:
            raise InputError(
                f"image of shape {image.shape} came for box {box} of the mask; "
                f"wanted {box.shape}"
            )
        x = np.arange(box.start[0], box.stop[0])
        y = np.arange(box.start[1], box.stop[1])
        width = self.border_width
        ring_x = (x < width) | (x >= self.shape[0] - width)
        ring_y = (y < width) | (y >= self.shape[1] - width)
        ring = ring_x[:, None] | ring_y[None, :]
        kept &= ~(ring[:, :, None] & (image <= self.bg_thresh))
        return kept
