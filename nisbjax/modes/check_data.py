"""The volumes and skeletons of a configuration, as a check looks at them.

What training, tuning and testing read is opened as they open it; what none of them refuses,
and no work should begin with, is said besides.
"""

from typing import Any

from absl import logging

from nisbjax import skeletons
from nisbjax.evaluate import nodes
from nisbjax.evaluate.placement import Placement, placement, turned
from nisbjax.geometry import Box
from nisbjax.keys.checks import optional
from nisbjax.modes.findings import Findings
from nisbjax.modes.volumes import Split, split_of, voxel_size_nm
from nisbjax.skeletons import Skeletons
from nisbjax.store.description import file_lines, other_size
from nisbjax.store.formats import is_there
from nisbjax.store.volume import Volume, open_image, open_labels
from nisbjax.typing import Config, Triple

SPLITS = ("train", "val", "test")


def check(config: Config, crop: Triple | None, found: Findings) -> list[str]:
    """Opens every volume that the configuration names, and its skeletons.

    Args:
      config: the whole of it; a split whose image is "" is left out.
      crop: that training reads; None where that is not known.
      found: takes what is wrong.

    Returns:
      The splits whose volumes can be read.
    """
    readable = []
    for name in SPLITS:
        trained_on = name == "train" or (name == "val" and config.train.val_every)
        if not trained_on and not optional(config.data[name].image):
            continue
        before = len(found.wrong)
        with found.asking():
            _volumes(config, name, crop, found)
        sound = len(found.wrong) == before
        readable += [name] * sound
        if name != "train":
            with found.asking():
                _skeletons(config, name, found, compare=sound)
    return readable


def _volumes(config: Config, name: str, crop: Triple | None, found: Findings) -> None:
    from nisbjax.train import recipe

    if name == "test" or (name == "val" and not config.train.val_every):
        split = split_of(config, name)
        if is_there(split.image) and not _has_labels(split):
            image = open_image(split.image)  # scored by skeletons, or not at all
            logging.info("%s: %s", name, file_lines(image))
            said = other_size(image, voxel_size_nm(config))
            if said:
                found.warn(said)
            return
    every, opened = recipe.sources_of(config, name), []
    for source in every:
        with found.asking():
            opened.append(_look_at_source(config, name, source, crop, found))
    if len(opened) == len(every) and every[0].name:
        for line in recipe.describe_sources(every, opened):
            logging.info("%s: %s", name, line)


def _look_at_source(
    config: Config, name: str, source: Any, crop: Triple | None, found: Findings
) -> list[Any]:
    """Opens the volumes of a source, and returns them."""
    from nisbjax.data import description
    from nisbjax.train import recipe

    pairs, said = recipe.open_source(config, name, source, crop)
    for line in said:
        found.warn(line)
    whose = f"source {source.name} of data.train.sources" if source.name else ""
    for pair in pairs[: recipe.DESCRIBED]:
        seen = description.look(pair, source.data.unlabeled)
        if seen.low == seen.high:
            found.refuse(
                f"{pair.image.source} holds the grey value {seen.low:g} alone in 3 crops; "
                f"wanted an image, check {whose or f'data.{name}.image'}"
            )
        if not seen.objects:
            found.warn(
                f"{pair.labels.source} holds no labeled object in 3 crops; check "
                f"{whose or f'data.{name}.label'}"
            )
    return pairs


def _has_labels(split: Split) -> bool:
    return bool(split.label) and is_there(split.label)


def _skeletons(config: Config, name: str, found: Findings, *, compare: bool) -> None:
    """Reads the skeletons of a split; compares them with its volumes, if these are sound."""
    split, key = split_of(config, name), f"data.{name}.skeleton"
    if not split.skeleton:
        return
    if not skeletons.is_there(split.skeleton):
        found.refuse(
            f"no skeleton at {split.skeleton}; check data.root and {key}, which is empty "
            f"where there is none (--config.{key}=)"
        )
        return
    size = voxel_size_nm(config)
    read = skeletons.load(split.skeleton, voxel_size_nm=size)
    note = read.resolution_note(size)
    if note:
        found.warn(note)
    if not compare:
        return
    volume = open_labels(split.label) if _has_labels(split) else open_image(split.image)
    nodes.check_inside(read, volume.spatial_shape, volume.source)
    box = optional(config.data[name].box)
    inside = read.within(Box.parse(box)) if box else read
    if not len(inside.edges):
        found.refuse(
            f"{split.skeleton} has no edge in data.{name}.box, {box}; choose another box"
        )
    elif _has_labels(split):
        _compare(config, name, volume, read, found)


def _compare(
    config: Config, name: str, labels: Volume, read: Skeletons, found: Findings
) -> None:
    """Notes skeletons that do not lie along the labels of their volume."""
    named = optional(config.data[name].box)
    box = Box.parse(named) if named else Box.whole(labels.spatial_shape)
    part = labels.view(labels.at(box).translate_to[(0, 0, 0)])

    def lying(whole: Skeletons) -> Placement | None:
        if nodes.outside(whole, labels.spatial_shape).any():
            return None
        return placement(whole.within(box), part, config.data.unlabeled)

    lies = lying(read)
    if lies is None:
        return
    logging.info("%s: %s: %s", name, read.source, lies)
    if lies.fits:
        return
    said = f"{read.source} does not lie in {labels.source}: {lies}"
    other = lying(turned(read))
    if other is not None and other.fits:
        found.warn(
            f"{said}; with its index_position taken as z y x {other.together:.0%} would be: "
            "write it as x y z, or say the order of the volume's axes with "
            f"--config.data.{name}.axes"
        )
    else:
        found.warn(f"{said}; is it of another volume?")
