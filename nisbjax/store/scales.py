"""Groups of scales in zarr: one volume at several resolutions, of which one is read.

OME-Zarr (0.1 to 0.5) lists the arrays of a group, finest first, with axes and voxel sizes. A
path of the group means its finest array, `em.zarr/1` the one that is named. PyTC and BANIS
open arrays alone.
"""

import functools
import math
import posixpath
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import logging

from nisbjax.errors import InputError
from nisbjax.store import axes, voxel_size
from nisbjax.store.attributes import read_json_object
from nisbjax.store.places import Place

# Attributes that hold for the scale alone that they were written for: they count its voxels.
OF_ONE = ("offsets", "box", "volume_shape")
_LEVELS_ABOVE = 8  # groups that may describe an array: `labels/cells/0`


class Scale(NamedTuple):
    """One array of a group of scales.

    Attributes:
      name: its path from the group.
      voxel_size_nm: x y z; None where the group does not say.
    """

    name: str
    voxel_size_nm: list[float] | None

    def __str__(self) -> str:
        size = self.voxel_size_nm
        return f"{self.name} ({in_words(size)})" if size else self.name


def in_words(size: list[float]) -> str:
    """A voxel's size for a message."""
    return f"{' x '.join(f'{s:g}' for s in size)} nm"


def array_of(path: Place) -> Place:
    """The array that a folder means: its finest scale of a group, else the folder itself.

    Raises:
      InputError: a group of several images, of no scales, or whose finest is not there.
    """
    attributes = group_attributes(path)
    found = _images(path, attributes)
    if not found:
        return path
    if len(found) > 1:
        listed = " and ".join(", ".join(s.name for s in image) for image in found)
        raise InputError(
            f"{path} holds {len(found)} images, of scales {listed}; name an array, as "
            f"{path}/{found[0][0].name}"
        )
    finest = finest_of(found[0])
    target = path / finest.name
    if not target.is_dir():
        there = [scale.name for scale in found[0] if (path / scale.name).is_dir()]
        others = f"name another, {path}/{there[0]}" if there else "copy it again"
        raise InputError(
            f"{path} says that its finest scale is {finest.name}, which is not there; "
            f"{others}"
        )
    say_finest(str(path), tuple(map(str, found[0])), finest.name)
    return target


def finest_of(found: list[Scale]) -> Scale:
    """The scale of the smallest voxels; the first where one does not say."""
    if any(scale.voxel_size_nm is None for scale in found):
        return found[0]
    return min(found, key=lambda scale: math.prod(scale.voxel_size_nm or ()))


@functools.lru_cache(maxsize=64)  # once for each: files are opened again and again
def say_finest(path: str, found: tuple[str, ...], finest: str) -> None:
    """Says in the log which of several scales is read."""
    if len(found) > 1:
        logging.info(
            "%s has the scales %s: %s, the finest, is read",
            path,
            ", ".join(found),
            finest,
        )


def missing(path: Place) -> str:
    """What to say of a path below a group that has no such scale; "" elsewhere.

    Args:
      path: where nothing is.
    """
    for group in list(path.parents)[:_LEVELS_ABOVE]:
        found = _images(group, group_attributes(group))
        if found:
            names = ", ".join(scale.name for image in found for scale in image)
            inner = path.relative_to(group).as_posix()
            return f"{group} has no scale {inner}; it has {names}"
    return ""


def above(path: Place) -> tuple[dict[str, Any], list[float] | None]:
    """What OME-Zarr says of an array in the groups above it.

    Returns:
      Words on its axes, as facts for `axes.named_axes`; and its voxel size x y z [nm].

    Raises:
      InputError: a scale that is no list of positive numbers.
    """
    path = path.resolve()
    for group in list(path.parents)[:_LEVELS_ABOVE]:
        attributes = group_attributes(group)
        inner = path.relative_to(group).as_posix()
        facts = axes.multiscales(attributes, inner)
        if facts:
            found = _images(group, attributes)
            sizes = [s.voxel_size_nm for i in found for s in i if same(s.name, inner)]
            return facts, sizes[0] if sizes else None
    return {}, None


def group_attributes(folder: Place) -> dict[str, Any]:
    """Attributes of a zarr group, v2 or v3; none of an array or another folder."""
    if (folder / ".zarray").exists():
        return {}
    found = read_json_object(folder / ".zattrs")
    if found is not None:
        return found
    metadata = read_json_object(folder / "zarr.json") or {}
    found = metadata.get("attributes")
    is_group = metadata.get("node_type", "group") == "group"
    return found if is_group and isinstance(found, dict) else {}


def same(name: str, inner: str) -> bool:
    """Whether two paths from a group are one."""
    return posixpath.normpath(name.strip("/")) == posixpath.normpath(inner)


def _images(group: Place, attributes: Mapping[str, Any]) -> list[list[Scale]]:
    """The scales of each image that a group lists."""
    found = []
    for image in axes.images(attributes):
        levels = [
            Scale(posixpath.normpath(d["path"].strip("/")), _size(group, image, d))
            for d in axes.dicts(image.get("datasets"))
            if isinstance(d.get("path"), str)
        ]
        if levels and [s.name for s in levels] not in [
            [s.name for s in other] for other in found
        ]:
            found.append(levels)
    return found


def _size(
    group: Place, image: Mapping[str, Any], level: Mapping[str, Any]
) -> list[float] | None:
    listed = list(axes.dicts(image.get("axes")))
    if not listed:
        return None
    count = len(listed)
    letters = axes.named_axes(
        str(group), (1,) * count, {}, {"multiscales": image.get("axes")}
    )
    scale: list[float] | None = None
    for holder in (level, image):
        for each in axes.dicts(holder.get("coordinateTransformations")):
            if each.get("type") == "scale" and "scale" in each:
                source = f"{group}/{level['path']}"
                values = voxel_size.require_sizes(source, "scale", each["scale"], count)
                before = scale or [1.0] * count
                scale = [a * b for a, b in zip(before, values, strict=True)]
    if not letters or scale is None:
        return None
    return voxel_size.from_axes(letters, scale, [axis.get("unit") for axis in listed])
