"""QC and the mask that comes of it, by what the configuration names.

Which files are meant is decided here, and no key decides again below.
"""

import pathlib
from typing import TYPE_CHECKING, Any

from nisbjax.artifacts import VolumeDir
from nisbjax.config import optional
from nisbjax.errors import InputError
from nisbjax.mask import open_mask

if TYPE_CHECKING:  # stages are imported when they are asked for
    from nisbjax.qc.stage import Paths


def paths(config: Any, place: VolumeDir) -> "Paths":
    """Report, mask and statistics of a volume; `qc.report` and `mask.output` are named."""
    from nisbjax.qc.stage import Paths

    return Paths(
        report=pathlib.Path(optional(config.qc.report) or place.qc_report),
        mask=pathlib.Path(optional(config.mask.output) or place.mask),
        statistics=place.plane_statistics,
    )


def affinity_mask(
    config: Any, place: VolumeDir, prediction: pathlib.Path, image: str
) -> str:
    """The mask that decoding and tuning apply: made by QC, named, or none.

    `decode.affinity_mask`: `auto` scans the prediction and builds the mask from the report;
    a path is taken as it is; "" is no mask.

    Args:
      config: the configuration.
      place: where report and mask go, unless keys name them.
      prediction: path of the affinities.
      image: that they were made from, unless `qc.image` names one; "" where nobody knows.

    Raises:
      InputError: no image is known to make one from, or as `qc.stage.run`.
    """
    chosen = config.decode.affinity_mask
    if chosen != "auto":
        return optional(chosen)
    from nisbjax.qc import stage

    image = optional(config.qc.image) or image
    if not image:
        raise InputError(
            f"{prediction} does not say which image it was made from, so there is none to "
            "make its mask from; name it with --config.qc.image=PATH, or set "
            "--config.decode.affinity_mask= (none)"
        )
    made = stage.run(
        config.qc,
        paths(config, place),
        prediction=prediction,
        image=image,
        memory_gb=config.decode.memory_gb,
    )
    return str(made)


def check_mask(config: Any, place: VolumeDir) -> None:
    """Opens a mask that is named, or looks where one can be made, before hours of work.

    Raises:
      InputError: as `open_mask` or `qc.stage.check_outputs`.
    """
    from nisbjax.qc import stage

    named = optional(config.decode.affinity_mask)
    if named == "auto":
        stage.check_outputs(config.qc, paths(config, place))
    elif named:
        open_mask(named)
