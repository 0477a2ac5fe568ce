"""Where the first voxel of a volume lies, as its file says it.

Labels are often drawn in a part of an image alone. Which part, files say by `voxel_offset`
(precomputed, in voxels x y z), by `offset` beside `resolution` or `voxel_size` (HDF5 and zarr of
CREMI and funlib, in nm, in the order of the axes as stored), or by OME-Zarr's `translation`. BANIS
takes labels to lie in the middle of their image.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from nisbjax.errors import InputError
from nisbjax.store import axes, formats, scales
from nisbjax.store.label_offset import CENTRE, parse
from nisbjax.store.volume import Volume
from nisbjax.typing import FloatTriple, Triple

_OFF = 0.1  # of a voxel, by which an offset may miss a whole number of them


def offset_of(image: Volume, labels: Volume, said: str = "") -> Triple:
    """The voxel of an image at which its labels begin.

    Args:
      image: [x y z c].
      labels: [x y z], of all or of a part of it.
      said: the offset as `x,y,z`, or `centre`; "" for what the files say, where the shapes
        differ.

    Raises:
      InputError: labels of a part whose place nobody says, or that is not inside the image.
    """
    whole, part = image.spatial_shape, labels.spatial_shape
    if not said and whole == part:
        return 0, 0, 0
    found = parse(said)
    if said == CENTRE:
        x, y, z = ((w - p) // 2 for w, p in zip(whole, part, strict=True))
        found = x, y, z
    if found is None:
        found = _by_files(image, labels)
    if found is None:
        raise InputError(
            f"{labels.source} has shape {part} but {image.source} has {whole}, and neither "
            "says where it begins; wanted labels for every voxel of the image, or their "
            "place: label_offset of the volumes, as 0,0,100 or centre"
        )
    if any(f < 0 or f + p > w for f, p, w in zip(found, part, whole, strict=True)):
        raise InputError(
            f"{labels.source} has shape {part} and begins at voxel "
            f"{','.join(map(str, found))} of {image.source}, which has shape {whole}; wanted "
            "labels inside their image"
        )
    return found


def _by_files(image: Volume, labels: Volume) -> Triple | None:
    place, start = origin(labels), origin(image)
    if place is None and start is None:
        return None
    apart = [p - s for p, s in zip(place or (0, 0, 0), start or (0, 0, 0), strict=True)]
    if any(abs(a - round(a)) > _OFF for a in apart):
        raise InputError(
            f"{labels.source} begins at {', '.join(f'{a:g}' for a in apart)} voxels of "
            f"{image.source}; wanted whole voxels: say its label_offset"
        )
    x, y, z = map(round, apart)
    return x, y, z


def origin(volume: Volume) -> FloatTriple | None:
    """Where its first voxel lies, in its own voxels x y z; None where it does not say."""
    found = volume.attributes
    if _is_vector(found.get("voxel_offset")):
        return _triple(found["voxel_offset"])
    sizes = next((found[k] for k in _SIZES if _is_vector(found.get(k))), None)
    if _is_vector(found.get("offset")) and sizes is not None and all(sizes):
        return _turned(
            volume, [o / s for o, s in zip(found["offset"], sizes, strict=True)]
        )
    return _translation(volume)


_SIZES = ("resolution", "voxel_size")  # in the order of `offset`


def _turned(volume: Volume, vector: Sequence[float | int]) -> FloatTriple:
    """A vector in the order of the axes as stored, as x y z."""
    order = [a for a in volume.stored_axes or volume.axes if a in "xyz"]
    by_axis = dict(zip(order, vector, strict=True))
    return by_axis["x"], by_axis["y"], by_axis["z"]


def _translation(volume: Volume) -> FloatTriple | None:
    """OME-Zarr's, of the group above an array."""
    place, inner = formats.split_path(axes.split_path(volume.source)[0])
    if inner is not None:
        return None
    path = place.resolve()
    for group in list(path.parents)[:8]:
        name = path.relative_to(group).as_posix()
        for image in axes.images(scales.group_attributes(group)):
            for level in axes.dicts(image.get("datasets")):
                if isinstance(level.get("path"), str) and scales.same(
                    level["path"].strip("/"), name
                ):
                    return _of_level(image, level)
    return None


def _of_level(image: Mapping[str, Any], level: Mapping[str, Any]) -> FloatTriple | None:
    letters = [axis.get("name") for axis in axes.dicts(image.get("axes"))]
    if not {"x", "y", "z"} <= set(letters):
        return None
    scale, moved = [1.0] * len(letters), [0.0] * len(letters)
    said = False
    for owner in (level, image):
        for each in axes.dicts(owner.get("coordinateTransformations")):
            factors, by = each.get("scale"), each.get("translation")
            if _is_vector(factors, len(letters)):
                scale = [s * f for s, f in zip(scale, factors, strict=True)]
                moved = [m * f for m, f in zip(moved, factors, strict=True)]
            if _is_vector(by, len(letters)):
                said = True
                moved = [m + b for m, b in zip(moved, by, strict=True)]
    if not said or not all(scale):
        return None
    x, y, z = (moved[i] / scale[i] for i in map(letters.index, "xyz"))
    return x, y, z


def _is_vector(value: Any, count: int = 3) -> TypeGuard[Sequence[float | int]]:
    return (
        isinstance(value, list | tuple)
        and len(value) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    )


def _triple(value: Sequence[float | int]) -> FloatTriple:
    x, y, z = map(float, value)
    return x, y, z
