"""Which voxels of a volume may carry edges: the mask of any box of it.

A mask is an array, a volume, or a specification: LICONN slabs have bad planes at the top
and bottom and a dark halo around the border, so six numbers and the image say it all (PyTC
`decoding/qc/affinity.py`, `build_affinity_mask`). PyTC zeroes all channels at masked voxels
of the whole prediction in memory; here the mask is asked for box by box, so a volume that
is larger than memory needs neither a masked copy nor a mask volume. PyTC's fast path skips
the ring where `bg_thresh` is 0 although its mask builder does not; here both are the same.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Shaped

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import address, records
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.regions import part_like, part_of, region_of
from nisbjax.store.schema import Schema, number, text, whole
from nisbjax.store.volume import Volume, open_image, open_volume
from nisbjax.typing import Mask, Triple

_SPECIFICATION: dict[str, Schema] = {
    "low_z": whole(),
    "high_z": whole(),
    "border_width": whole(),
    "bg_thresh": number(),
    "source_image": text(),
}


@dataclasses.dataclass(frozen=True)
class MaskSpec:
    """Keeps low_z <= z < high_z, without dark voxels of the outer x y ring.

    Attributes:
      shape: of the volume, x y z.
      low_z: first plane kept.
      high_z: first plane behind those kept.
      border_width: of the ring along the x and y faces, in voxels; 0 for none.
      bg_thresh: image intensity at or below which a voxel of the ring is background.
      start: of a part in its volume, along whose faces the ring is.
      volume: shape of that volume; None where this is all of it.
    """

    shape: Triple
    low_z: int
    high_z: int
    border_width: int
    bg_thresh: float
    start: Triple = (0, 0, 0)
    volume: Triple | None = None

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
        x, y, z = self.volume or self.shape
        inner = Box((width, width, 0), (x - width, y - width, z))
        return width > 0 and not inner.contains(box.shift(self.start))

    def inside(self, box: Box) -> "MaskSpec":
        """The same mask of a part, whose voxels count from the start of a box."""
        start = box.shift(self.start).start
        low, high = (
            min(max(z - box.start[2], 0), box.shape[2])
            for z in (self.low_z, self.high_z)
        )
        return dataclasses.replace(
            self,
            shape=box.shape,
            low_z=low,
            high_z=high,
            start=start,
            volume=self.volume or self.shape,
        )

    def facts(self) -> dict[str, Any]:
        """What it lets through, as JSON has it; of a part also which."""
        found = dataclasses.asdict(self) | {"shape": list(self.shape)}
        start, volume = found.pop("start"), found.pop("volume")
        if volume is not None:
            found |= {"start": list(start), "volume": list(volume)}
        return found

    def mask_of(self, box: Box, image: Shaped[np.ndarray, "x y z"] | None) -> Mask:
        """The mask of one box: True where a voxel may carry edges.

        Args:
          box: inside the volume.
          image: intensities of the box (first channel), needed where it touches the ring.

        Raises:
          InputError: the image is missing where it is needed, or has another shape.
        """
        mask = np.zeros(box.shape, bool)
        z0, z1 = box.start[2], box.stop[2]
        first, last = max(self.low_z, z0) - z0, min(self.high_z, z1) - z0
        mask[:, :, max(first, 0) : max(last, 0)] = True
        if not self.touches_ring(box):
            return mask
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
        at, volume = box.shift(self.start), self.volume or self.shape
        x = np.arange(at.start[0], at.stop[0])
        y = np.arange(at.start[1], at.stop[1])
        width = self.border_width
        ring_x = (x < width) | (x >= volume[0] - width)
        ring_y = (y < width) | (y >= volume[1] - width)
        ring = ring_x[:, None] | ring_y[None, :]
        mask &= ~(ring[:, :, None] & (image <= self.bg_thresh))
        return mask


# Axes of their own: a mask of another shape is refused here, with a message.
MaskSource = Shaped[np.ndarray, "mask_x mask_y mask_z"] | Volume | MaskSpec
ImageSource = Shaped[np.ndarray, "image_x image_y image_z *image_c"] | Volume


def require_mask(
    mask: MaskSource | None, image: ImageSource | None, shape: Triple
) -> None:
    """Refuses a mask, or the image that it needs, of another shape; a mask of fractions.

    Args:
      mask: bool or integers (0 = masked), a volume of them, or a specification.
      image: the source image, [x y z] or [x y z c]; only a specification looks at it.
      shape: of the affinities, x y z.

    Raises:
      InputError: naming both shapes, or the type of the mask: NaN is neither 0 nor 1.
    """
    if mask is None:
        return
    if not isinstance(mask, MaskSpec) and mask.dtype.kind not in "bui":
        name = mask.source if isinstance(mask, Volume) else "the mask"
        raise InputError(
            f"{name} is {mask.dtype}; wanted truth values or whole numbers, 0 = masked"
        )
    found = mask_shape(mask)
    if found != tuple(shape):
        raise InputError(
            f"mask {found} does not match affinities {tuple(shape)}; rerun --mode=mask "
            "on this prediction, or set --config.decode.affinity_mask="
        )
    if image is None or not isinstance(mask, MaskSpec):
        return
    volume = isinstance(image, Volume)
    name = image.source if volume else "the source image"
    found = image.spatial_shape if volume else image.shape[:3]
    if found != tuple(mask.shape):
        raise InputError(
            f"image {name} {found} does not match the mask's {tuple(mask.shape)}; name "
            "the image that was predicted"
        )


def mask_of_box(mask: MaskSource, image: ImageSource | None, box: Box) -> Mask:
    """The mask of one box, True where a voxel may carry edges.

    Args:
      mask: as `require_mask`.
      image: its first channel counts, where a specification has a border ring.
      box: inside the volume.

    Raises:
      InputError: the box touches a border ring, and there is no image.
    """
    if isinstance(mask, Volume):
        return np.ascontiguousarray(mask.read(box)) != 0
    if not isinstance(mask, MaskSpec):
        part = mask[box.slices]
        return part if mask.dtype == bool else part != 0
    if image is None or not mask.touches_ring(box):
        return mask.mask_of(box, None)
    pixels = image.read(box) if isinstance(image, Volume) else image[box.slices]
    return mask.mask_of(box, pixels if pixels.ndim == 3 else pixels[..., 0])


def mask_facts(path: str | pathlib.Path, mask: MaskSource | None) -> dict[str, Any]:
    """What a mask lets through, in words that a refusal can name.

    Args:
      path: of the mask; "" for none.
      mask: what `open_mask` made of it.
    """
    if isinstance(mask, MaskSpec):
        named = mask.facts()
        found = open_volume(path, axes="xyz").attributes
        named["image"] = found.get("source_fingerprint", "")
        return {f"mask.{name}": value for name, value in named.items()}
    return {"mask": fingerprint(path) if path else ""}


def open_mask(path: str | pathlib.Path) -> tuple[MaskSource, ImageSource | None]:
    """A mask as its specification where its file has one, else as a volume.

    PyTC's fast path: with the attributes of its mask builder only the border ring of the
    source image is read. The image is looked for by its path from the mask's folder, then
    by PyTC's key; where it is not found, the mask itself is read.
    """
    volume = open_volume(path, axes="xyz")
    found = volume.attributes
    if not all(key in found for key in _SPECIFICATION):
        return volume, None
    try:
        records.check(dict(found), _SPECIFICATION, f"attributes of {path}")
    except InputError as error:
        logging.warning("%s; reading the mask itself", error)
        return volume, None
    opened = _image_of(path, found, volume)
    if opened is None:
        return volume, None
    region, whole_shape = region_of(volume)
    part = region != Box.whole(whole_shape)
    spec = MaskSpec(
        volume.spatial_shape,
        int(found["low_z"]),
        int(found["high_z"]),
        int(found["border_width"]),
        float(found["bg_thresh"]),
        region.start,
        whole_shape if part else None,
    )
    return spec, opened


def open_mask_for(
    path: str | pathlib.Path, affinities: Volume
) -> tuple[MaskSource, ImageSource | None]:
    """As `open_mask`, for affinities that may be of a part of the mask's volume.

    Raises:
      InputError: the mask is of another part.
    """
    mask, image = open_mask(path)
    region, shape = region_of(affinities)
    if region == Box.whole(shape):
        return mask, image
    require_region(
        path,
        mask,
        region,
        f"{affinities.source} covers {region}; rerun --mode=qc and --mode=mask on this "
        "prediction, or set --config.decode.affinity_mask=",
    )
    if isinstance(mask, MaskSpec) and mask.shape == shape:
        mask = mask.inside(region)
    elif isinstance(mask, Volume):
        mask = part_of(mask, region, shape)
    if isinstance(image, Volume):
        image = part_of(image, region, shape)
    return mask, image


def require_region(
    path: str | pathlib.Path, mask: MaskSource, region: Box, wanted: str
) -> None:
    """Refuses a mask that says that it is of another part; its shape may be the same.

    Args:
      path: of the mask.
      mask: what `open_mask` made of it.
      region: of the affinities in their volume.
      wanted: what is of that region, and what to do; the end of the message.

    Raises:
      InputError: it is.
    """
    own = _region_of(mask)
    if own is not None and own != region:
        raise InputError(f"the mask {path} is of {own} of its volume, and {wanted}")


def part_taken(path: str | pathlib.Path, affinities: Volume) -> Box | None:
    """The region that `open_mask_for` takes of a mask; None where it takes all of it."""
    region, shape = region_of(affinities)
    whole = open_volume(path, axes="xyz").spatial_shape == shape
    return region if whole and region != Box.whole(shape) else None


def mask_shape(mask: MaskSource) -> tuple[int, ...]:
    """x, y, z of any kind of mask."""
    return mask.spatial_shape if isinstance(mask, Volume) else tuple(mask.shape)


def _region_of(mask: MaskSource) -> Box | None:
    """Which part of a volume a mask says that it is; None where it is all of one."""
    if isinstance(mask, MaskSpec):
        return None if mask.volume is None else Box.whole(mask.shape).shift(mask.start)
    if not isinstance(mask, Volume):
        return None
    region, shape = region_of(mask)
    return None if region == Box.whole(shape) else region


def _image_of(
    path: str | pathlib.Path, found: Mapping[str, Any], mask: Volume
) -> Volume | None:
    """The image that a mask was built from; None, and a line in the log, if it is not here."""
    folder = pathlib.Path(path).absolute().parent
    keys = ("source_image_relative", "source_image")
    named = [
        found[key] for key in keys if isinstance(found.get(key), str) and found[key]
    ]
    others = []
    for image in dict.fromkeys(
        name if address.is_address(name) else folder / name for name in named
    ):
        try:
            opened = part_like(open_image(image), mask)
        except InputError:
            continue
        known = found.get("source_fingerprint")
        same_shape = opened.spatial_shape == mask.spatial_shape
        if known in (None, fingerprint(image)) and same_shape:
            return opened
        others.append(image)
    if others:
        logging.warning(
            "%s is not the image that %s was built from; reading the mask itself",
            others[0],
            path,
        )
    else:
        logging.info("%s names no image that is here; reading the mask itself", path)
    return None
