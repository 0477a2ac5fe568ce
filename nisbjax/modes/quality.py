"""QC and the mask that comes of it, by what the configuration names.

Which files are meant is decided here, and no key decides again below.
"""

import pathlib
from typing import TYPE_CHECKING

from nisbjax.artifacts import VolumeDir
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.keys.checks import optional
from nisbjax.mask import open_mask, require_mask
from nisbjax.modes.outputs import OWN, NamedOutputs
from nisbjax.store.finished import require_finished
from nisbjax.store.volume import open_image
from nisbjax.typing import Config, Triple

if TYPE_CHECKING:  # stages are imported when they are asked for
    from nisbjax.qc.stage import Paths


def paths(place: VolumeDir, named: NamedOutputs = OWN) -> "Paths":
    """Report, mask and statistics of a volume: those that are named, or its folder's."""
    from nisbjax.qc.stage import Paths

    return Paths(
        report=pathlib.Path(named.report or place.qc_report),
        mask=pathlib.Path(named.mask or place.mask),
        statistics=place.plane_statistics,
    )


def affinity_mask(
    config: Config,
    place: VolumeDir,
    prediction: pathlib.Path,
    image: str,
    named: NamedOutputs = OWN,
) -> str:
    """The mask that decoding and tuning apply: made by QC, named, or none.

    `decode.affinity_mask`: `auto` scans the prediction and builds the mask from the report;
    a path is taken as it is; "" is no mask.

    Args:
      config: the configuration.
      place: where report and mask go.
      prediction: path of the affinities.
      image: that they were made from, unless `qc.image` names one; "" where nobody knows.
      named: its `report` and `mask` instead of those of the place.

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
        paths(place, named),
        prediction=prediction,
        image=image,
        memory_gb=config.decode.memory_gb,
    )
    return str(made)


def check_mask(
    config: Config, place: VolumeDir, image: str, named: NamedOutputs = OWN
) -> None:
    """Refuses a mask that is named, or cannot be made, before hours of prediction.

    Args:
      config: the configuration.
      place, named: as `affinity_mask`.
      image: path of what is going to be predicted.

    Raises:
      InputError: as `open_mask`, `require_mask` or `qc.stage.check_outputs`; a part of an
        image, of which no mask is made.
    """
    from nisbjax.qc import stage

    mask = optional(config.decode.affinity_mask)
    if mask == "auto":
        stage.check_outputs(config.qc, paths(place, named))
        _require_whole(config, image)
    elif mask:
        require_finished(mask)
        require_mask(*open_mask(mask), _predicted_shape(config, image))


def _require_whole(config: Config, image: str) -> None:
    """Refuses to make the mask of a part, in a report's terms: planes of an image."""
    whole = optional(config.qc.image) or image
    shape, predicted = open_image(whole).spatial_shape, _predicted_shape(config, image)
    if shape != predicted:
        raise InputError(
            f"decode.affinity_mask is 'auto', which makes masks of whole images, and of "
            f"{whole} {shape} a part of {predicted} is predicted; set "
            "--config.decode.affinity_mask= (none), or name an image of that part with "
            "--config.qc.image=PATH"
        )


def _predicted_shape(config: Config, image: str) -> Triple:
    """Of the affinities that an image is going to have, x y z."""
    roi = optional(config.predict.roi)
    return Box.parse(roi).shape if roi else open_image(image).spatial_shape
