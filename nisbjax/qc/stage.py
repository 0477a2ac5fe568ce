"""The QC stage: a prediction becomes a report, and the report an affinity mask.

PyTC reads the prediction with a script of its own (`check_aff.py` in the tutorial); here
the same figures come from one pass over the chunks, or were gathered while predicting.
"""

import dataclasses
import itertools
import math
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from absl import logging

from nisbjax.artifacts import VolumeDir
from nisbjax.config import optional
from nisbjax.errors import InputError
from nisbjax.qc import front_matter, gathering, plots, report, statistics
from nisbjax.qc import mask_file as mask
from nisbjax.qc.cuts import find_cuts
from nisbjax.qc.front_matter import FrontMatter
from nisbjax.store import files
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.lock import writing
from nisbjax.store.manifest import require_finished
from nisbjax.store.volume import Volume, open_affinities, open_image

_CUTS = ("z_stride", "k_edge", "refine_window", "drift_thresh", "auto_extend")


def run(
    config: Any,
    target: VolumeDir,
    *,
    prediction: str | os.PathLike,
    image: str | os.PathLike,
) -> pathlib.Path:
    """Checks a prediction and builds its mask; returns the mask's path.

    Raises:
      InputError: as `check` and `mask.from_report`, or an image of another shape.
    """
    name = optional(config.qc.image) or str(image)
    source = optional(config.qc.input) or str(prediction)
    shape = open_affinities(source).spatial_shape
    if name and open_image(name).spatial_shape != shape:
        raise InputError(
            f"image {name} {open_image(name).spatial_shape} has not the shape {shape} of "
            f"the prediction {source}, so it makes no mask for it; name its image with "
            "--config.qc.image, or set --config.decode.affinity_mask= (none)"
        )
    check_outputs(config, target)
    found = check(config, target, prediction=prediction, image=image)
    return mask.from_report(
        found, image_path=optional(config.qc.image), out=_mask_path(config, target)
    )


def check_outputs(config: Any, target: VolumeDir) -> None:
    """Refuses what lies where report, plots or mask are to go; writes nothing.

    Args:
      config: keys `qc` and `mask.output`.
      target: where they go without names.

    Raises:
      InputError: a folder, a device, another file than a mask, or keys that make no sense.
    """
    _refuse_nonsense(config.qc)
    _report_path(config, target)
    mask.require_replaceable(_mask_path(config, target))


def build(config: Any, target: VolumeDir) -> pathlib.Path:
    """Builds the mask of `mask.report` (the run's report where ""); returns its path.

    Without `mask.output`, a report that is named goes where its own `out` says.

    Raises:
      InputError: no report there, or keys, image or cuts that cannot be used.
    """
    named = optional(config.mask.report)
    out = optional(config.mask.output) or ("" if named else str(target.mask))
    return mask.from_report(
        named or target.qc_report, image_path=optional(config.qc.image), out=out
    )


def check(
    config: Any,
    target: VolumeDir,
    *,
    prediction: str | os.PathLike,
    image: str | os.PathLike,
) -> pathlib.Path:
    """Scans a prediction, decides the cuts and writes the report with its plots.

    Args:
      config: keys `qc` (its `input`, `image` and `report` win over the arguments) and
        `mask.output`.
      target: where the report goes.
      prediction: path of affinities [c x y z].
      image: path of the image that was predicted; "" for none.

    Returns:
      The path of the report.

    Raises:
      InputError: no prediction there, an unfinished one, or keys that make no sense.
    """
    settings = config.qc
    _refuse_nonsense(settings)
    source = optional(settings.input) or str(prediction)
    require_finished(source)
    affinities = open_affinities(source)
    require_chunks_fit(affinities, config.decode.memory_gb)
    image_name = optional(settings.image) or str(image)
    pixels = open_image(image_name) if image_name else None
    if pixels is not None and pixels.spatial_shape != affinities.spatial_shape:
        logging.warning(
            "image %s %s has not the prediction's shape %s: no border rows",
            image_name,
            pixels.spatial_shape,
            affinities.spatial_shape,
        )
        pixels = None
    path = _report_path(config, target)
    with writing(path):
        return _check(config, target, path, source, affinities, image_name, pixels)


def _check(
    config: Any,
    target: VolumeDir,
    path: pathlib.Path,
    source: str,
    affinities: Volume,
    image_name: str,
    pixels: Volume | None,
) -> pathlib.Path:
    started = time.monotonic()
    settings = config.qc
    found = statistics.load(
        target.plane_statistics, gathering.identity(affinities.attributes, settings)
    )
    was_gathered = found is not None
    if found is None:
        found = statistics.scan(
            affinities,
            gathering.border_of(pixels, settings) if pixels is not None else None,
        )
    cuts = find_cuts(found.planes, **{key: settings[key] for key in _CUTS})
    if not cuts.usable:
        logging.warning("%s: no plane passes in all channels; none is kept", source)
    front = FrontMatter(
        img=os.path.abspath(image_name) if image_name else "",
        out=os.path.abspath(_mask_path(config, target)),
        low_z=cuts.low_z,
        high_z=cuts.high_z,
        bg_thresh=float(settings.bg_thresh),
        border_width=settings.border_width,
    )
    subject = report.Subject(
        prediction=os.path.abspath(source),
        shape=affinities.shape,
        dtype=str(affinities.dtype),
        image=front.img,
        plots=plots.draw_all(path, affinities, found, cuts),
    )
    text = report.text(front, subject, found, cuts, settings.to_dict())
    _set_aside(path, front, text)
    files.write_text(path, text)
    logging.info(
        "%s %s: keeps z %d to %d of %d%s, %.1f s; %s",
        "took the gathered statistics of" if was_gathered else "scanned",
        source,
        cuts.low_z,
        cuts.high_z,
        affinities.spatial_shape[2],
        ", saturated" if cuts.saturated_low or cuts.saturated_high else "",
        time.monotonic() - started,
        path,
    )
    return path


def _set_aside(path: pathlib.Path, front: FrontMatter, text: str) -> None:
    """Keeps a report that says something else: somebody may have edited it.

    Every copy has a number of its own, so that a later run replaces none of them.
    """
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        return
    if before == text.encode():
        return
    for aside in _asides(path):
        if not os.path.lexists(aside):
            break
        if aside.is_file() and aside.read_bytes() == before:
            return
    with files.replacing(aside) as temporary:
        temporary.write_bytes(before)
    logging.warning(
        "%s %s; it is kept as %s. To use it, give it to --mode=mask, and the mask to "
        "--config.decode.affinity_mask",
        path,
        _difference(path, front),
        aside.name,
    )


def _asides(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """`report.before.md`, `report.before-2.md`, ..."""
    for number in itertools.count(1):
        suffix = f"-{number}" if number > 1 else ""
        yield path.with_name(f"{path.stem}.before{suffix}{path.suffix}")


def _difference(path: pathlib.Path, front: FrontMatter) -> str:
    try:
        found = front_matter.read(path)
    except InputError:
        return "had no front matter that could be read"
    others = dataclasses.asdict(front)
    differing = [k for k, v in dataclasses.asdict(found).items() if v != others[k]]
    return f"said another {', '.join(differing)}" if differing else "had another text"


def _report_path(config: Any, target: VolumeDir) -> pathlib.Path:
    """Where the report goes; neither it nor a plot may take the place of a device."""
    path = pathlib.Path(optional(config.qc.report) or target.qc_report)
    for output in (path, *plots.paths(path).values()):
        files.require_file(output)
    return path


def _mask_path(config: Any, target: VolumeDir) -> str:
    return optional(config.mask.output) or str(target.mask)


def _refuse_nonsense(settings: Any) -> None:
    for key in ("z_stride", "refine_window", "n_z_border"):
        if settings[key] < 1:
            raise InputError(f"qc.{key} is {settings[key]}; wanted 1 or more planes")
    for key in ("k_edge", "border_width", "drift_thresh"):
        if not 0 <= settings[key] < math.inf:
            raise InputError(f"qc.{key} is {settings[key]}; wanted 0 or more")
    if not math.isfinite(settings.bg_thresh):
        raise InputError(
            f"qc.bg_thresh is {settings.bg_thresh}; wanted a finite intensity"
        )
