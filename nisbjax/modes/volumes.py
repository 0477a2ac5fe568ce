"""Which image and which skeleton belong to a file: those of its volume, by what it says.

The configuration names a validation and a test volume. A prediction says which image it was
made from, by path and by fingerprint, and a segmentation has that from its prediction; so a
file that is named brings its own volume, wherever it lies. PyTC pairs whatever its sections
name, and BANIS what stands in one folder.
"""

import contextlib
import dataclasses
import os
from typing import Any

from nisbjax.artifacts import volume_name
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.keys.checks import optional
from nisbjax.store import address, axes, partners
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.fingerprint_versions import difference
from nisbjax.store.formats import is_there
from nisbjax.store.volume import Volume, open_affinities
from nisbjax.typing import Config


@dataclasses.dataclass(frozen=True)
class Split:
    """Paths of the validation or the test volume; "" where the config names none."""

    image: str
    label: str
    skeleton: str

    @property
    def name(self) -> str:
        return volume_name(self.image)


def split_of(config: Config, split: str) -> Split:
    """The volume that `data.<split>` names below `data.root`.

    Where the order of a file's axes is said by the configuration, or by its partner
    (`partners.alike`), it stands behind the path.
    """
    chosen = config.data[split]
    said = optional(chosen.axes)

    def path(value: str, letters: str = "") -> str:
        value = optional(value)
        if not value:
            return ""
        return axes.with_axes(address.join(config.data.root, value), letters)

    image = path(chosen.image, said)
    label = path(chosen.label, "".join(a for a in said if a != "c"))
    if image and label and is_there(image) and is_there(label):
        with contextlib.suppress(InputError):  # whoever reads it says why
            image, label = partners.alike(image, label)
    return Split(image, label, path(chosen.skeleton))


def within_box(config: Config, split: str) -> Config:
    """The configuration with `data.<split>.box` as the region that is predicted.

    Raises:
      InputError: `predict.roi` reaches beyond it.
    """
    box, roi = optional(config.data[split].box), optional(config.predict.roi)
    if not box:
        return config
    if roi and not Box.parse(box).contains(Box.parse(roi)):
        raise InputError(
            f"predict.roi is {roi}, which is not inside data.{split}.box, {box}; leave one "
            "of them out"
        )
    config = config.copy_and_resolve_references()
    config.predict.roi = roi or box
    return config


def within_box_of_tested(config: Config) -> Config:
    """As `within_box`, for the test volume, or for that of `predict.input`.

    Where one image is divided into both, `predict.roi` says which is meant; else it is the
    test volume.
    """
    image = predicted_image(config)
    if not image:
        return within_box(config, "test")
    owners = [
        name
        for name in ("test", "val")
        if (own := split_of(config, name).image) and same_file(own, image)
    ]
    roi = optional(config.predict.roi)
    holding = [name for name in owners if roi and _holds(config, name, roi)]
    return within_box(config, (holding or owners)[0]) if owners else config


def _holds(config: Config, split: str, box: str) -> bool:
    """Whether a region is inside the box of a split that has one."""
    own = optional(config.data[split].box)
    return bool(own) and Box.parse(own).contains(Box.parse(box))


def apart(config: Config, one: str, other: str) -> bool:
    """Whether two splits are boxes of one image that have no voxel in common."""
    if not same_file(split_of(config, one).image, split_of(config, other).image):
        return False
    boxes = [optional(config.data[split].box) for split in (one, other)]
    if not all(boxes):
        return False
    first, second = map(Box.parse, boxes)
    return first.intersect(second).empty


def predicted_image(config: Config) -> str:
    """`predict.input` with the axes that are said of it; "" for the test volume's image."""
    said = optional(config.predict.axes)
    return axes.with_axes(optional(config.predict.input), said)


def require_root(config: Config, split: Split) -> None:
    """Refuses a volume below a root that was not named.

    Raises:
      InputError: `data.root` is empty, and the image is not here.
    """
    if not config.data.root and split.image and not is_there(split.image):
        raise InputError(
            f"data.root is empty, and there is no {split.image} here; name the folder that "
            "holds it with --config.data.root=DIR"
        )


def voxel_size_nm(config: Config) -> tuple[float, float, float]:
    """`data.voxel_size_nm`, x, y, z."""
    x, y, z = map(float, config.data.voxel_size_nm)
    return x, y, z


def same_file(one: str, other: str) -> bool:
    """Whether two paths lead to one array and channel, whatever is said of its axes."""
    (first, said), (second, other_said) = map(axes.split_path, (one, other))
    if axes.choices_of(said) != axes.choices_of(other_said):
        return False
    if address.is_address(first) or address.is_address(second):
        return first == second
    return os.path.realpath(first) == os.path.realpath(second)


def split_with(
    config: Config, image: str, known: str = "", box: str = ""
) -> Split | None:
    """The volume of the configuration whose image is that one; None where there is none.

    Args:
      config: keys `data`.
      image: its path; "" to look for its fingerprint alone.
      known: its fingerprint, for an image that has moved; "" where that is not known.
      box: the region that is meant, where one image is divided into test and validation
        volume; "" for the test volume then.
    """
    found: dict[str, Split] = {}
    for name in ("test", "val"):
        split = split_of(config, name)
        if not split.image or not is_there(split.image):
            continue
        # A copy, or the same image where the data have moved, is known by its content.
        here = bool(image) and is_there(image)
        if (image and same_file(split.image, image)) or (
            (wanted := known or (fingerprint(image) if here else ""))
            and fingerprint(split.image) == wanted
        ):
            found[name] = split
    holding = [name for name in found if box and _holds(config, name, box)]
    return next((found[name] for name in (*holding, *found)), None)


def image_of(config: Config, volume: Volume) -> str:
    """The image that a prediction, or that of a segmentation, was made from.

    Args:
      config: keys `data`, where an image that has moved is looked for.
      volume: affinities [c x y z], or segments [x y z].

    Returns:
      The path of an image that is there; "" where the file does not say (other programs'
      files), or says one that is neither there nor in the configuration.

    Raises:
      InputError: the image that it names is another by now.
    """
    named, known = _named_image(volume)
    if not named:
        return ""
    if is_there(named) and known in ("", fingerprint(named)):
        return named
    moved = split_with(config, "", known) if known else None
    if moved is not None:
        return moved.image
    if is_there(named):
        said = difference(known, fingerprint(named))
        raise InputError(
            f"{volume.source} was made from {named}, which {said}; name its image with "
            "--config.qc.image, or predict it again"
        )
    return ""


def _named_image(volume: Volume) -> tuple[str, str]:
    """Path and fingerprint of the image, as the file has them."""
    found = volume.attributes
    keys = ("source", "source_fingerprint")
    if volume.axes == "xyz":
        keys = ("image", "image_fingerprint")
        if "image" not in found:  # of another program, or without its words
            prediction = _text(found, "source")
            if not prediction or not is_there(prediction):
                return "", ""
            return _named_image(open_affinities(prediction))
    return _text(found, keys[0]), _text(found, keys[1])


def _text(found: Any, key: str) -> str:
    value = found.get(key, "")
    return value if isinstance(value, str) else ""
