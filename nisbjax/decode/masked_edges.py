"""Which affinities of a volume count as edges: where they are stored, and what a mask takes.

Channel i at voxel v is the edge from v to v + e_i (BANIS), or the one that ends at v. A mask
takes the edges at its voxels, at both of their ends or only where they are stored. PyTC sets
all channels to 0 at masked voxels, by which one plane behind a masked region stays; that is
`mask_edges="source"` here.

    voxel              0    1    2    3    4
    mask               1    1    0    1    1
    stored at source  0-1  1-2  2-3  3-4   -      both:   0-1, 3-4
                                                  source: 0-1, 1-2, 3-4

The edge 1-2 is stored at voxel 1, so `source` leaves it: voxel 2 stays in the segment.
"""

import dataclasses

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.mask import ImageSource, MaskSource, mask_of_box, require_mask
from nisbjax.typing import Mask, Triple

MASK_EDGES = ("both", "source")


@dataclasses.dataclass(frozen=True)
class MaskedEdges:
    """Which edges of an affinity graph count; sent to workers as it is.

    Attributes:
      edge_offset: 0 where edges are stored at their source (BANIS), 1 at the destination.
      mask: of the volume, [x y z], 0 (or False) = masked; or a specification.
      image: [x y z] or [x y z c], which a specification with a border ring needs.
      mask_edges: `both` drops every edge that touches a masked voxel; `source` only those
        stored at one.
      part: of the volume, from whose start voxels are counted; see `inside`.

    Raises:
      InputError: no such offset or word.
    """

    edge_offset: int = 0
    mask: MaskSource | None = None
    image: ImageSource | None = None
    mask_edges: str = "both"
    part: Box | None = None

    def __post_init__(self):
        if self.edge_offset not in (0, 1):
            raise InputError(
                f"edge_offset is {self.edge_offset}; wanted 0 (stored at the source) or 1 "
                "(at the destination)"
            )
        if self.mask_edges not in MASK_EDGES:
            raise InputError(
                f"mask_edges is {self.mask_edges!r}; wanted one of "
                f"{', '.join(MASK_EDGES)}"
            )

    @classmethod
    def of(cls, edges: "MaskedEdges | None", mask: MaskSource | None) -> "MaskedEdges":
        """What a caller named: all of it, a mask alone, or nothing.

        Raises:
          InputError: both.
        """
        if edges is None:
            return cls(mask=mask)
        if mask is not None:
            raise InputError(
                "a mask came beside edges, which have their own; name it in one of them"
            )
        return edges

    @property
    def both(self) -> bool:
        """Whether a masked voxel takes edges that are stored at their other voxel."""
        return self.mask_edges == "both"

    def require_shape(self, shape: Triple) -> None:
        """Refuses a mask, or its image, that is not of this volume.

        Of a part of a volume, whose mask is the volume's, nothing is asked.

        Raises:
          InputError: naming both shapes.
        """
        if self.part is None:
            require_mask(self.mask, self.image, shape)

    def stored_at(self, edge_offset: int) -> "MaskedEdges":
        """The same mask, for affinities whose edges are stored elsewhere."""
        return dataclasses.replace(self, edge_offset=edge_offset)

    def inside(self, box: Box) -> "MaskedEdges":
        """The same edges, with voxels counted from the start of a box of the volume."""
        return dataclasses.replace(self, part=box)

    def mask_of(self, box: Box) -> Mask | None:
        """The mask of a box, True where a voxel may carry edges; None where there is none."""
        if self.mask is None:
            return None
        if self.part is not None:
            box = box.shift(self.part.start)
        return mask_of_box(self.mask, self.image, box)
