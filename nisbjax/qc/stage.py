"""The QC stage: a prediction becomes a report, and the report an affinity mask.

PyTC reads the prediction with a script of its own (`check_aff.py` in the tutorial); here
the same figures come from one pass over the chunks, or were gathered while predicting.
"""

import dataclasses
import math
import os
import pathlib
import time

from absl import logging

from nisbjax.console import quantities
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.qc import (
    gathering,
    mask_file,
    pictures,
    report,
    report_file,
    statistics,
    statistics_file,
)
from nisbjax.qc.cuts import find_cuts
from nisbjax.qc.front_matter import FrontMatter
from nisbjax.store import absent_chunks, address, files
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.finished import require_finished
from nisbjax.store.lock import writing
from nisbjax.store.regions import part_like, region_of
from nisbjax.store.volume import Volume, open_affinities, open_image
from nisbjax.typing import Section

_CUTS = ("z_stride", "k_edge", "refine_window", "drift_thresh", "auto_extend")


@dataclasses.dataclass(frozen=True)
class Paths:
    """What QC reads and writes besides prediction and image.

    Attributes:
      report: to be written, its plots beside it.
      mask: to be built from the report.
      statistics: that may have been gathered while predicting.
    """

    report: pathlib.Path
    mask: pathlib.Path
    statistics: pathlib.Path


def run(
    section: Section,
    paths: Paths,
    *,
    prediction: str | os.PathLike,
    image: str | os.PathLike,
    memory_gb: float,
) -> pathlib.Path:
    """Checks a prediction and builds its mask; arguments as of `check`.

    Returns:
      The path of the mask.

    Raises:
      InputError: as `check` and `mask_file.from_report`, or an image of another shape.
    """
    affinities = open_affinities(prediction)
    shape = found = affinities.spatial_shape
    if str(image):
        found = part_like(open_image(image), affinities).spatial_shape
    if found != shape:
        raise InputError(
            f"image {image} {found} has not the shape {shape} of the prediction "
            f"{prediction}, so it makes no mask for it; name its image with "
            "--config.qc.image, or set --config.decode.affinity_mask= (none)"
        )
    check_outputs(section, paths)
    written = check(
        section, paths, prediction=prediction, image=image, memory_gb=memory_gb
    )
    return mask_file.from_report(written, image_path=str(image), out=str(paths.mask))


def check_outputs(section: Section, paths: Paths) -> None:
    """Refuses what lies where report, plots or mask are to go; writes nothing.

    Args:
      section: `qc`.
      paths: of the report and the mask.

    Raises:
      InputError: a folder, a device, another file than a mask, or keys that make no sense.
    """
    _refuse_nonsense(section)
    _require_files(paths.report)
    mask_file.require_replaceable(paths.mask)


def check(
    section: Section,
    paths: Paths,
    *,
    prediction: str | os.PathLike,
    image: str | os.PathLike,
    memory_gb: float,
) -> pathlib.Path:
    """Scans a prediction, decides the cuts and writes the report with its plots.

    Args:
      section: `qc`; which files are meant is said by the arguments.
      paths: where the report goes, and which mask it is to name.
      prediction: path of affinities [c x y z].
      image: path of the image of which all or a part was predicted; "" for none.
      memory_gb: that a chunk of the prediction may take.

    Returns:
      The path of the report.

    Raises:
      InputError: no prediction there, an unfinished one, or keys that make no sense.
    """
    _refuse_nonsense(section)
    require_finished(prediction)
    affinities = open_affinities(prediction)
    require_chunks_fit(affinities, memory_gb)
    pixels = _pixels(image, affinities) if str(image) else None
    _require_files(paths.report)
    with writing(paths.report):
        absent = absent_chunks.say(affinities)
        started = time.monotonic()
        found, how = _statistics(section, paths, affinities, pixels)
        cuts = find_cuts(found.planes, **{key: section[key] for key in _CUTS})
        if not cuts.usable:
            logging.warning(
                "%s: no plane passes in all channels; none is kept", prediction
            )
        region, whole = region_of(affinities)
        part = region != Box.whole(whole)
        front = FrontMatter(
            img=address.absolute(image) if str(image) else "",
            out=os.path.abspath(paths.mask),
            low_z=cuts.low_z,
            high_z=cuts.high_z,
            bg_thresh=float(section.bg_thresh),
            border_width=section.border_width,
            box=str(region) * part,
            volume_shape=",".join(map(str, whole)) * part,
        )
        subject = report.Subject(
            prediction=address.absolute(prediction),
            shape=affinities.shape,
            dtype=str(affinities.dtype),
            image=front.img,
            absent_chunks=absent,
            plots=pictures.draw_all(paths.report, affinities, found, cuts),
        )
        text = report.text(front, subject, found, cuts, section.to_dict())
        report_file.write(paths.report, front, text)
    logging.info(
        "QC %s, %s: keeps z %d to %d of %d%s\nwrote %s",
        how,
        quantities.duration(time.monotonic() - started),
        cuts.low_z,
        cuts.high_z,
        affinities.spatial_shape[2],
        ", saturated" if cuts.saturated_low or cuts.saturated_high else "",
        paths.report,
    )
    return paths.report


def _pixels(image: str | os.PathLike, affinities: Volume) -> Volume | None:
    """The image that the border rows look at; None where its shape is another."""
    pixels = part_like(open_image(image), affinities)
    if pixels.spatial_shape == affinities.spatial_shape:
        return pixels
    logging.warning(
        "image %s of %s has not the prediction's shape %s: no border rows",
        image,
        quantities.shape(pixels.spatial_shape),
        quantities.shape(affinities.spatial_shape),
    )
    return None


def _statistics(
    section: Section, paths: Paths, affinities: Volume, pixels: Volume | None
) -> tuple[statistics.Statistics, str]:
    """Those that were gathered of exactly this prediction, or of a scan; and which."""
    made_from = gathering.identity(affinities.attributes, section)
    found = statistics_file.load(paths.statistics, made_from)
    if found is not None:
        return found, "by gathered statistics"
    border = None
    if pixels is not None:
        border = gathering.border_of(pixels, section, affinities)
    return statistics.scan(affinities, border), "by a scan"


def _require_files(path: pathlib.Path) -> None:
    """Refuses a report that, or a plot of which, would take the place of a device."""
    for output in (path, *pictures.paths(path).values()):
        files.require_file(output)


def _refuse_nonsense(section: Section) -> None:
    for key in ("z_stride", "refine_window", "n_z_border"):
        if section[key] < 1:
            raise InputError(f"qc.{key} is {section[key]}; wanted 1 or more planes")
    for key in ("k_edge", "border_width", "drift_thresh"):
        if not 0 <= section[key] < math.inf:
            raise InputError(f"qc.{key} is {section[key]}; wanted 0 or more")
    if not math.isfinite(section.bg_thresh):
        raise InputError(
            f"qc.bg_thresh is {section.bg_thresh}; wanted a finite intensity"
        )
