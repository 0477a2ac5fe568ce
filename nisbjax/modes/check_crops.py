"""The first crops of a training: what is wrong with them, and a picture of three.

Erosion that leaves nothing, or labels that are one object, show in the affinity targets and
nowhere before them.
"""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from nisbjax.artifacts import Run
from nisbjax.modes.findings import Findings
from nisbjax.modes.volumes import voxel_size_nm
from nisbjax.typing import Config, Triple

if TYPE_CHECKING:  # stages are imported when they are asked for
    from nisbjax.train.first_crops import FirstCrop


def check(
    config: Config, recipe: Any, batch: int, run_dir: Run, found: Findings
) -> None:
    """Reads three crops as training does, judges them and draws them.

    Args:
      config: the whole of it.
      recipe: of the training.
      batch: samples of a micro-batch on all devices.
      run_dir: of the training; its picture goes into the folder `check`.
      found: takes what is wrong.
    """
    import jax

    from nisbjax.parallel import devices
    from nisbjax.train.first_crops import first_crops
    from nisbjax.train.recipe import training_loader

    rule, crops = recipe.examples, []
    one = devices.make_mesh((("data", -1),), jax.local_devices()[:1])
    logging.info("making the first 3 crops; what makes them is compiled (about 20 s)")
    with found.asking():
        loader = training_loader(config, rule.crop, one, batch, run_dir.grey_values)
        crops = first_crops(
            loader, rule, seed=config.seed, batch=batch * config.train.accumulate
        )
    if not crops:
        return
    judge(crops, rule.offsets, rule.erosion, found)
    path = draw(run_dir.check.picture, crops, config)
    logging.info("wrote %s", path)


def judge(
    crops: Sequence["FirstCrop"],
    offsets: Sequence[Triple],
    erosion: Triple,
    found: Findings,
) -> None:
    """Notes crops that teach nothing.

    Args:
      crops: the first of a training.
      offsets: of the affinity channels.
      erosion: radii of `data.erosion`, for messages.
      found: takes what is wrong.
    """
    where = f"the first {len(crops)} crops of training"
    labels = np.stack([crop.view.labels for crop in crops])
    eroded = np.stack([crop.view.eroded for crop in crops])
    valid = np.concatenate([_edges(crop.view.valid) for crop in crops])
    true = np.concatenate([_edges(crop.view.targets) for crop in crops])[valid]
    image = np.stack([crop.view.images for crop in crops])
    if np.ptp(image) == 0:
        found.refuse(
            f"{where} hold the grey value {image.flat[0]:.3g} alone; wanted an image, "
            "check data.train.image and data.normalize"
        )
    if not len(true):
        found.refuse(
            f"in {where} no edge has labels at both ends; check data.train.label and "
            "data.unlabeled"
        )
    elif not true.any() and (labels > 0).any() and not (eroded > 0).any():
        found.refuse(
            f"data.erosion={tuple(erosion)} leaves nothing of the labels in {where}; "
            "lower it, to (0, 0, 0) where labels already leave a gap"
        )
    elif not true.any():
        found.refuse(
            f"in {where} no edge of data.offsets={tuple(offsets)} joins two voxels of one "
            "label; check the labels, or lower data.erosion"
        )
    elif true.all():
        found.refuse(
            f"in {where} all labels are one object without background, so that every edge "
            "is true and nothing is learnt; check data.train.label"
        )
    for offset, edges, known in _channels(crops, offsets):
        if known.any() and not edges[known].any() and true.any():
            found.warn(
                f"in {where} no edge {_shown(offset)} is true; is it longer than the "
                "neurites?"
            )


def draw(
    path: pathlib.Path, crops: Sequence["FirstCrop"], config: Config
) -> pathlib.Path:
    """A row for each crop, at its middle plane of z: image, labels, eroded, targets.

    Args:
      path: of the PNG.
      crops: their views.
      config: keys `data`.
    """
    from nisbjax.viz import crops as pictures

    offsets = tuple(tuple(offset) for offset in config.data.offsets)
    short, long = ends(offsets)
    rows = []
    for crop in crops:
        view, z = crop.view, crop.view.labels.shape[2] // 2
        panels = [
            pictures.Panel("image", view.images[:, :, z].mean(axis=-1)),
            pictures.Panel(
                f"labels: {_percent(view.labels == 0)} background,\n"
                f"{_percent(view.labels < 0)} unlabeled",
                view.labels[:, :, z],
            ),
            pictures.Panel(
                f"eroded by {','.join(map(str, config.data.erosion))}:\n"
                f"{_percent(view.eroded == 0)} background",
                view.eroded[:, :, z],
            ),
        ]
        for channel in (short, long):
            known, true = view.valid[..., channel], view.targets[..., channel]
            shown = np.where(known, true, np.float32(0.5))
            title = (
                f"edge {_shown(offsets[channel])}: {_percent(true[known])} true,\n"
                f"{_percent(~known)} masked"
            )
            panels.append(pictures.Panel(title, shown[:, :, z]))
        where = crop.source.rsplit("/", 1)[-1].replace(" [", "\n[", 1)
        said = f"step {crop.step}, sample {crop.sample}, z {z}\n{where}"
        rows.append((said, panels))
    x, y, _ = voxel_size_nm(config)
    return pictures.draw(path, rows, y / x)


def ends(offsets: Sequence[Triple]) -> tuple[int, int]:
    """The channels of the shortest edge and of the longest one."""
    lengths = [sum(map(abs, offset)) for offset in offsets]
    return int(np.argmin(lengths)), len(lengths) - 1 - int(np.argmax(lengths[::-1]))


def _channels(crops: Sequence["FirstCrop"], offsets: Sequence[Triple]) -> Any:
    """Offset, targets and validity of each channel, over all crops."""
    for channel, offset in enumerate(offsets):
        edges = np.stack([crop.view.targets[..., channel] for crop in crops])
        yield offset, edges, np.stack([crop.view.valid[..., channel] for crop in crops])


def _edges(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).ravel()


def _percent(values: np.ndarray) -> str:
    return f"{np.mean(values) if values.size else 0:.0%}"


def _shown(offset: Triple) -> str:
    return ",".join(map(str, offset))
