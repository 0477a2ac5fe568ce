"""NISB's tree of volumes: `{split}/seed{i}/data.zarr/{img,seg}` below one root.

Layout of the NISB benchmark (structuralneurobiologylab.github.io/nisb). Volumes are found
by glob and sorted by number; BANIS sorts as text, so that seed10 stands before seed2. Any
other pair of image and label files opens the same way.
"""

import glob
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from nisbjax.data.intensity import Scale
from nisbjax.data.normalization import Normalization
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import address, axes, listing, numeric_order, partners
from nisbjax.store.formats import is_hdf5, is_there, split_path
from nisbjax.store.places import place_of
from nisbjax.store.unlabeled import DEFAULT
from nisbjax.store.volume import Volume, from_array, open_volume
from nisbjax.typing import Triple


class Pair(NamedTuple):
    """An image [x y z c] and its labels [x y z], of all or of a part of it.

    Attributes:
      image: [x y z c], scaled by slices or places already where that is asked for.
      labels: [x y z].
      scale: of its grey values.
      unlabeled: label values that are not supervised, see `unlabeled.parse_codes`.
      offset: voxel of the image at which the labels begin.
      mask: [x y z], of the labels' voxels; 0 where they do not count. None for everywhere.
      erosion: number of the radii by which its labels are eroded, see `targets.ExampleRule`.
    """

    image: Volume
    labels: Volume
    scale: Scale = Scale()
    unlabeled: str = DEFAULT
    erosion: int = 0
    offset: Triple = (0, 0, 0)
    mask: Volume | None = None

    def over_labels(self) -> "Pair":
        """The image where there are labels, to look at both together."""
        box = Box.whole(self.labels.spatial_shape).shift(self.offset)
        if box == Box.whole(self.image.spatial_shape):
            return self
        return self._replace(image=_cut(self.image, box), offset=(0, 0, 0))


def find(root: str | os.PathLike, pattern: str, said: str = "") -> list[str]:
    """Paths that match a glob below `root` (or an absolute one), in numeric order.

    Brackets and stars mean something in the pattern alone, never in the root's name; a
    pattern that is the name of something is that. Datasets of HDF5 files are named behind
    them (`cremi*.h5/volumes/raw`), and several patterns stand with commas between them, in
    their own order.

    Args:
      root: of the data set.
      pattern: one or several.
      said: order of the axes of files that the pattern does not say it of.

    Returns:
      Paths, with the axes that were said behind them (`em.h5#zyx`).

    Raises:
      InputError: nothing matches.
    """
    named = address.join(root, axes.split_path(pattern)[0])
    one = "," not in pattern or os.path.lexists(named)
    patterns = [pattern] if one else [part.strip() for part in pattern.split(",")]
    return [path for part in patterns for path in _matches(root, part, said)]


def _matches(root: str | os.PathLike, pattern: str, said: str) -> list[str]:
    pattern, letters = axes.split_path(pattern)
    said = axes.merged(letters, said)
    named = address.join(root, pattern)
    if address.is_address(named):
        found = _matches_at(named) if listing.is_pattern(named) else [named]
        for path in found:
            split_path(path)  # says what is wrong with it
        return [axes.with_axes(path, said) for path in found]
    found = [named] if is_there(named) else _globbed(pathlib.Path(root), pattern)
    if not found and not os.fspath(root):
        raise InputError(
            f"data.root is empty, and no volume matches {pattern} here; name the folder that "
            "holds it with --config.data.root=DIR"
        )
    if not found:
        raise InputError(f"no volume matches {named}; check data.root and the pattern")
    return [axes.with_axes(path, said) for path in sorted(found, key=numeric_order.key)]


def _matches_at(named: str) -> list[str]:
    """The volumes of a bucket that match a glob; other folders that match are none."""
    folders = listing.matching(named)
    for path in folders:
        place_of(path)  # all are asked for before one is waited for
    found = [path for path in folders if is_there(path)]
    if not found:
        said = f"; {folders[0]} is none" if folders else ""
        raise InputError(
            f"no volume matches {named}{said}; check data.root and the pattern"
        )
    return found


def _globbed(root: pathlib.Path, pattern: str) -> list[str]:
    """What matches a glob, or a glob of HDF5 files with a dataset behind it."""
    found = glob.glob(pattern, root_dir=root)
    parts = pathlib.Path(pattern).parts
    for end in range(1, len(parts)):
        file, inner = pathlib.Path(*parts[:end]), pathlib.Path(*parts[end:])
        if is_hdf5(file):
            files = glob.glob(str(file), root_dir=root)
            found += [str(pathlib.Path(f) / inner) for f in files]
    return [str(root / path) for path in found]


def open_pairs(
    root: str | os.PathLike,
    image: str,
    label: str,
    box: str = "",
    said: str = "",
    normalization: Normalization | None = None,
    mask: str = "",
    label_offset: str = "",
) -> list[Pair]:
    """Opens every volume of a split.

    Args:
      root: of the data set.
      image: glob of the images below it, `train/seed*/data.zarr/img`; see `find`.
      label: glob of their labels.
      box: part of each volume to use, `x0:x1,y0:y1,z0:z1` in voxels; "" for all of it.
      said: order of the axes of all these files, `zyx`; "" where they say it, or an image
        or its labels do; else x y z.
      normalization: of the images, by what each holds as a whole; None to leave them as they
        are, to be looked at.
      mask: glob of volumes of the images' shapes that are 0 where labels do not count; ""
        for none.
      label_offset: where labels of a part begin, see `origin.offset_of`.

    Returns:
      Pairs in numeric order of their paths.

    Raises:
      InputError: nothing matches, images and labels differ in number or shape, a volume is
        empty or not what it should be, or the box is not inside it.
    """
    images = find(root, image, said)
    labels = find(root, label, "".join(a for a in said if a != "c"))
    if len(images) != len(labels):
        raise InputError(
            f"{len(images)} volumes match {image} but {len(labels)} match {label}; wanted "
            "labels for every image"
        )
    pairs = []
    for i, s in zip(images, labels, strict=True):
        opened, known, offset = partners.open_both(i, s, label_offset)
        pairs.append(Pair(opened, known, offset=offset))
    if mask:
        pairs = _masked(
            pairs, find(root, mask, "".join(a for a in said if a != "c")), mask
        )
    for pair in pairs:
        if pair.image.shape[-1] != pairs[0].image.shape[-1]:
            raise InputError(
                f"{pair.image.source} has {pair.image.shape[-1]} channels but "
                f"{pairs[0].image.source} has {pairs[0].image.shape[-1]}; wanted the same"
            )
    if normalization is not None:
        for number, pair in enumerate(pairs):
            view, scale = normalization.applied(pair.image)
            pairs[number] = pair._replace(image=view, scale=scale)
    return [_part(pair, Box.parse(box)) for pair in pairs] if box else pairs


def _masked(pairs: Sequence[Pair], paths: Sequence[str], pattern: str) -> list[Pair]:
    """The pairs with their masks, of the labels' voxels."""
    if len(paths) != len(pairs):
        raise InputError(
            f"{len(pairs)} volumes have labels but {len(paths)} match {pattern}; wanted a "
            "mask for each"
        )
    found = []
    for pair, path in zip(pairs, paths, strict=True):
        mask = open_volume(path, axes="xyz")
        if (
            mask.spatial_shape != pair.image.spatial_shape
            or mask.dtype.kind not in "biu"
        ):
            raise InputError(
                f"{mask.source} holds {mask.dtype} of shape {mask.spatial_shape}; wanted a "
                f"mask of whole numbers of the shape of {pair.image.source}, "
                f"{pair.image.spatial_shape}"
            )
        own = Box.whole(pair.labels.spatial_shape).shift(pair.offset)
        found.append(pair._replace(mask=_cut(mask, own)))
    return found


def _part(pair: Pair, box: Box) -> Pair:
    shape = pair.image.spatial_shape
    if box.empty or not Box.whole(shape).contains(box):
        raise InputError(
            f"{pair.labels.source} has shape {shape}; wanted a box inside it, not {box}"
        )
    known = box.relative_to(pair.offset).clip(pair.labels.spatial_shape)
    if known.empty:
        raise InputError(
            f"{pair.labels.source} begins at voxel {','.join(map(str, pair.offset))} and has "
            f"shape {pair.labels.spatial_shape}; wanted a box with some of it, not {box}"
        )
    offset = known.shift(pair.offset).relative_to(box.start).start
    return pair._replace(
        image=_cut(pair.image, box),
        labels=_cut(pair.labels, known),
        mask=None if pair.mask is None else _cut(pair.mask, known),
        offset=offset,
    )


def _cut(volume: Volume, box: Box) -> Volume:
    # Re-based, so that what lies outside the box does not exist for the loader.
    store = volume.at(box).translate_to[(0,) * volume.rank]
    return volume.view(store, source=f"{volume.source} [{box}]")


def in_memory(pairs: Sequence[Pair], memory_gb: float) -> list[Pair]:
    """The same pairs, read once into memory if all of them fit the budget."""
    together = [(pair.image, pair.labels, pair.mask) for pair in pairs]
    volumes = [v for each in together for v in each if v is not None]
    size = sum(v.store.size * v.dtype.itemsize for v in volumes)
    if size > memory_gb * 1e9:
        return list(pairs)
    return [
        pair._replace(
            image=_held(pair.image),
            labels=_held(pair.labels),
            mask=None if pair.mask is None else _held(pair.mask),
        )
        for pair in pairs
    ]


def _held(volume: Volume) -> Volume:
    return from_array(volume.read(), volume.axes, volume.attributes, volume.source)
