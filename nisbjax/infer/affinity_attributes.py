"""What a file of affinities says of itself, so that it is read rightly without its run.

PyTC's `raw_x1_ch0-1-2.h5` has no attributes: which edges it holds, of which image and by
which weights, stands in the configuration alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from nisbjax.geometry import Box
from nisbjax.keys import determines
from nisbjax.store import address, software
from nisbjax.store.volume import Volume
from nisbjax.typing import Section, Triple


@dataclasses.dataclass(frozen=True)
class EdgeGeometry:
    """Which voxels the network's channels join, and how large a voxel is.

    Attributes:
      offsets: of the edges, for each output channel of the network; channels behind them
        hold no edge that is known.
      stored_at: `source` or `destination`, the voxel at which an edge stands.
      voxel_size_nm: x y z.
    """

    offsets: tuple[Triple, ...]
    stored_at: str
    voxel_size_nm: tuple[float | int, ...]

    def offset_of(self, channel: int) -> Triple | None:
        """The edge of an output channel; None where none is known."""
        return self.offsets[channel] if channel < len(self.offsets) else None

    def of(self, channels: Sequence[int]) -> tuple[Triple, ...]:
        """The edges of output channels that are all known."""
        return tuple(self.offsets[channel] for channel in channels)


def attributes(
    section: Section,
    edges: EdgeGeometry,
    image: Volume,
    region: Box,
    determined_by: Mapping[str, Any],
    made_from: Mapping[str, Any],
) -> dict[str, Any]:
    """The attributes of a prediction.

    Args:
      section: `predict`, with `precision` settled.
      edges: of the network's channels.
      image: that is predicted.
      region: the part of it.
      determined_by: the keys that determine the affinities, with their values.
      made_from: these, and the fingerprint `image` and the facts `network`.
    """
    return {
        "kind": "affinities",
        "voxel_size_nm": list(edges.voxel_size_nm),
        "offsets": [
            None if offset is None else list(offset)
            for offset in map(edges.offset_of, section.channels)
        ],
        "edge_stored_at": edges.stored_at,
        "activation": section.activation,
        "scale": section.scale,
        "window": list(section.window),
        "overlap": section.overlap,
        "edge_windows": section.edge_windows,
        "blend": section.blend,
        "precision": section.precision,
        "tta": section.tta,
        "box": str(region),
        "volume_shape": list(image.spatial_shape),
        "source": address.absolute(image.source),
        "source_fingerprint": made_from["image"],
        "config_fingerprint": determines.digest(determined_by),
        "network": made_from["network"],
        "software": software.NAME,
    }
