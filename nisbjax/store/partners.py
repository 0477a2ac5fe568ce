"""The files of one volume: its image and its labels lie alike on disk.

A TIFF stack has planes of z by custom and an HDF5 file beside it says nothing, so each read
by its own rule would be the other's transpose, and of equal sides nobody would notice. So
what one of the two says of its axes holds for the other, if that says nothing. PyTC and
BANIS read both as they lie.
"""

import functools
import itertools

from absl import logging

from nisbjax.errors import InputError
from nisbjax.store import axes, origin
from nisbjax.store.volume import Volume, open_image, open_labels, open_volume
from nisbjax.typing import Triple


def open_both(image: str, label: str, said: str = "") -> tuple[Volume, Volume, Triple]:
    """An image [x y z c], its labels [x y z], and the voxel of the image where they begin.

    Args:
      image, label: their paths; axes may be said behind either (`em.h5#zyx`).
      said: where labels of a part begin, see `origin.offset_of`.

    Raises:
      InputError: as `open_image` and `open_labels`, or they differ in shape and nobody says
        where the labels lie.
    """
    image, label = alike(image, label)
    opened, known = open_image(image), open_labels(label)
    differ = opened.spatial_shape != known.spatial_shape
    if not said and differ and not (origin.origin(opened) or origin.origin(known)):
        _require_alike(opened, known)
    return opened, known, origin.offset_of(opened, known, said)


def alike(image: str, label: str) -> tuple[str, str]:
    """The same paths; behind one that says nothing of its axes those of the other.

    Unless the two have one shape as they are and would not have it then. What is said behind
    a path is said of that file alone.

    Raises:
      InputError: as `open_image` and `open_labels`.
    """
    if any(axes.letters_of(axes.split_path(path)[1]) for path in (image, label)):
        return image, label
    opened, known = open_image(image), open_labels(label)
    told, also = _spatial(opened), _spatial(known)
    if bool(told) == bool(also) or "xyz" in (told, also):
        return image, label
    if told:
        turned = axes.with_axes(label, told)
        shapes = opened.spatial_shape, open_labels(turned).spatial_shape
        pair, said, partner = (image, turned), label, image
    else:
        channel = "c" * (open_volume(image).rank - 3)
        turned = axes.with_axes(image, also + channel)
        shapes = open_image(turned).spatial_shape, known.spatial_shape
        pair, said, partner = (turned, label), image, label
    if shapes[0] != shapes[1] and opened.spatial_shape == known.spatial_shape:
        return image, label
    _say(said, " ".join(told or also), partner)
    return pair


@functools.lru_cache(maxsize=64)  # once for each: files are opened again and again
def _say(path: str, order: str, partner: str) -> None:
    logging.info("%s has no word for its axes: %s, as in %s", path, order, partner)


def _spatial(volume: Volume) -> str:
    """The order of x y z in which it is stored, as far as that is known; else ""."""
    return "".join(a for a in volume.stored_axes if a in "xyz")


def _require_alike(image: Volume, labels: Volume) -> None:
    wanted, found = image.spatial_shape, labels.spatial_shape
    if wanted == found:
        return
    for letters in map("".join, itertools.permutations("xyz")):
        turned = tuple(found["xyz".index(a)] for a in letters)
        if letters != "xyz" and turned == wanted:
            raise InputError(
                f"{labels.source} has shape {found} and {image.source} has {wanted}: are the "
                f"axes of one of them {_inverse(letters)}? say so behind its path, as "
                f"{_said_anew(labels.source, _inverse(letters))}"
            )
    raise InputError(
        f"{labels.source} has shape {found} but {image.source} has {wanted}; wanted labels "
        "for every voxel of the image, or where they begin in it (label_offset)"
    )


def _inverse(letters: str) -> str:
    """Stored axes of an array whose turn to `letters` gives x y z: z x y for y z x."""
    return "".join("xyz"[letters.index(a)] for a in "xyz")


def _said_anew(path: str, letters: str) -> str:
    """A path with another order of its axes behind it."""
    plain, said = axes.split_path(path)
    choices = [word for word in said.split("#") if "=" in word]
    return "#".join([plain, letters, *choices])
