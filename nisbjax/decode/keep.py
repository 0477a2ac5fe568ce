"""The keep-mask that decoding applies: an array, a volume, or a `MaskSpec` with its image.

PyTC zeroes all channels at masked voxels of the whole prediction in memory
(`decoding/stage.py`); here the mask is asked for box by box and applied inside the kernel,
so a volume that is larger than memory needs neither a masked copy nor a mask volume.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.mask import MaskSpec
from nisbjax.store.volume import Volume, from_array
from nisbjax.typing import Mask, Triple

Keep = Callable[[Box], Mask]
# Axes of their own: a mask of another shape is refused here, with a message.
MaskSource = Shaped[np.ndarray, "mask_x mask_y mask_z"] | Volume | MaskSpec
ImageSource = Shaped[np.ndarray, "image_x image_y image_z *image_c"] | Volume

MASK_EDGES = ("both", "source")


def keep_mask(
    mask: MaskSource | None, image: ImageSource | None, shape: Triple
) -> Keep | None:
    """A function from boxes inside the volume to their mask, True where kept.

    Args:
      mask: bool or integers (0 = masked), a volume of them, or a specification.
      image: the source image, [x y z] or [x y z c] (first channel counts); needed only
        where a specification has a border ring.
      shape: of the affinities, x y z.

    Raises:
      InputError: the mask, or the image that it needs, has another shape.
    """
    if mask is None:
        return None
    found = tuple(mask.spatial_shape if isinstance(mask, Volume) else mask.shape)
    if found != tuple(shape):
        raise InputError(
            f"mask {found} does not match affinities {tuple(shape)}; rerun --mode=mask "
            "on this prediction, or set --config.decode.affinity_mask="
        )
    if isinstance(mask, MaskSpec):
        return _from_specification(mask, image)
    if isinstance(mask, Volume):
        return lambda box: np.ascontiguousarray(mask.read(box)) != 0
    if mask.dtype == bool:
        return lambda box: mask[box.slices]
    return lambda box: mask[box.slices] != 0


def _from_specification(spec: MaskSpec, image: ImageSource | None) -> Keep:
    if image is not None and not isinstance(image, Volume):
        image = from_array(image, "xyzc"[: image.ndim], source="the source image")
    if image is not None and image.spatial_shape != tuple(spec.shape):
        raise InputError(
            f"image {image.source} {image.spatial_shape} does not match the mask's "
            f"{tuple(spec.shape)}; name the image that was predicted"
        )

    def keep(box: Box) -> Mask:
        if image is None or not spec.touches_ring(box):
            return spec.keep(box, None)
        pixels = image.read(box)
        return spec.keep(box, pixels if pixels.ndim == 3 else pixels[..., 0])

    return keep
