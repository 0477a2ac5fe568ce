"""Which part of which volume an array is, and that part of other arrays of the volume.

Predictions of a region (`predict.roi`), their masks and what is decoded from them say in
`box` and `volume_shape` which part they are; all other arrays are whole volumes. PyTC and
BANIS crop files beforehand, and nothing says where a crop was.
"""

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import records
from nisbjax.store.schema import list_of, text, whole
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple


def region_of(volume: Volume) -> tuple[Box, Triple]:
    """Which part an array says that it is, and the shape of the whole volume.

    Raises:
      InputError: attributes that mean nothing, or of a box of another shape.
    """
    if not {"box", "volume_shape"} <= volume.attributes.keys():
        return Box.whole(volume.spatial_shape), volume.spatial_shape
    wanted = {"box": text(), "volume_shape": list_of(whole(1), 3)}
    found = records.check(
        dict(volume.attributes), wanted, f"attributes of {volume.source}"
    )
    region = Box.parse(found["box"])
    x, y, z = found["volume_shape"]
    if region.shape != volume.spatial_shape:
        raise InputError(
            f"{volume.source} has the shape {volume.spatial_shape} and says that it is "
            f"the box {region}; wanted a box of its own shape, or no attribute box"
        )
    return region, (x, y, z)


def part_like(volume: Volume, part: Volume) -> Volume:
    """The region of a volume that another array says that it covers (`region_of`).

    Args:
      volume: an image or labels of the whole volume; of the part's shape, it is taken as
        the part already.
      part: a prediction, a segmentation, a mask.

    Returns:
      The region of `volume`; itself where its shape is not that of the whole volume.
    """
    return part_of(volume, *region_of(part))


def part_of(volume: Volume, region: Box, shape: Triple) -> Volume:
    """A region of a volume of a shape; one of another shape as it is."""
    if volume.spatial_shape != shape or region == Box.whole(shape):
        return volume
    store = volume.at(region).translate_to[(0,) * volume.rank]
    return volume.view(store, source=f"{volume.source} [{region}]")
