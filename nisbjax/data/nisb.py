"""NISB's tree of volumes: `{split}/seed{i}/data.zarr/{img,seg}` below one root.

Layout of the NISB benchmark (structuralneurobiologylab.github.io/nisb). Volumes are found
by glob and sorted by number; BANIS sorts as text, so that seed10 stands before seed2. Any
other pair of image and label files opens the same way.
"""

import glob
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store.volume import Volume, from_array, open_image, open_labels


class Pair(NamedTuple):
    """An image [x y z c] and its labels [x y z], of the same spatial shape."""

    image: Volume
    labels: Volume


def find(root: str | os.PathLike, pattern: str) -> list[pathlib.Path]:
    """Paths that match a glob below `root` (or an absolute one), in numeric order.

    Brackets and stars mean something in the pattern alone, never in the root's name; a
    pattern that is the name of something is that.

    Raises:
      InputError: nothing matches.
    """
    given, root = os.fspath(root), pathlib.Path(root)
    named = root / pattern
    if named.exists():
        return [named]
    paths = [root / path for path in glob.glob(pattern, root_dir=root)]
    if not paths and not given:
        raise InputError(
            f"data.root is empty, and no volume matches {pattern} here; name the folder that "
            "holds it with --config.data.root=DIR"
        )
    if not paths:
        raise InputError(
            f"no volume matches {root / pattern}; check data.root and the pattern"
        )
    return sorted(paths, key=_numeric)


def _numeric(path: pathlib.Path) -> list[tuple[bool, int, str]]:
    pieces = re.split(r"(\d+)", str(path))
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in pieces]


def open_pairs(
    root: str | os.PathLike, image: str, label: str, box: str = ""
) -> list[Pair]:
    """Opens every volume of a split.

    Args:
      root: of the data set.
      image: glob of the images below it, `train/seed*/data.zarr/img`.
      label: glob of their labels.
      box: part of each volume to use, `x0:x1,y0:y1,z0:z1` in voxels; "" for all of it.

    Returns:
      Pairs in numeric order of their paths.

    Raises:
      InputError: nothing matches, images and labels differ in number or shape, a volume is
        empty or not what it should be, or the box is not inside it.
    """
    images, labels = find(root, image), find(root, label)
    if len(images) != len(labels):
        raise InputError(
            f"{len(images)} volumes match {image} but {len(labels)} match {label}; wanted "
            "labels for every image"
        )
    pairs = [
        Pair(open_image(i), open_labels(s)) for i, s in zip(images, labels, strict=True)
    ]
    for pair in pairs:
        if pair.image.spatial_shape != pair.labels.shape:
            raise InputError(
                f"{pair.labels.source} has shape {pair.labels.shape} but "
                f"{pair.image.source} has {pair.image.spatial_shape}; wanted labels for "
                "every voxel of the image"
            )
        if pair.image.shape[-1] != pairs[0].image.shape[-1]:
            raise InputError(
                f"{pair.image.source} has {pair.image.shape[-1]} channels but "
                f"{pairs[0].image.source} has {pairs[0].image.shape[-1]}; wanted the same"
            )
    return [_part(pair, Box.parse(box)) for pair in pairs] if box else pairs


def _part(pair: Pair, box: Box) -> Pair:
    shape = pair.labels.spatial_shape
    if box.empty or not Box.whole(shape).contains(box):
        raise InputError(
            f"{pair.labels.source} has shape {shape}; wanted a box inside it, not {box}"
        )
    return Pair(*(_cut(volume, box) for volume in pair))


def _cut(volume: Volume, box: Box) -> Volume:
    # Re-based, so that what lies outside the box does not exist for the loader.
    store = volume.at(box).translate_to[(0,) * volume.rank]
    return volume.view(store, source=f"{volume.source} [{box}]")


def in_memory(pairs: Sequence[Pair], memory_gb: float) -> list[Pair]:
    """The same pairs, read once into memory if all of them fit the budget."""
    volumes = [volume for pair in pairs for volume in pair]
    size = sum(v.store.size * v.dtype.itemsize for v in volumes)
    if size > memory_gb * 1e9:
        return list(pairs)
    return [
        Pair(*(from_array(v.read(), v.axes, v.attributes, v.source) for v in pair))
        for pair in pairs
    ]
