"""QC and the mask that comes of it, by what the configuration names.

Which files are meant is decided here, and no key decides again below.
"""

import pathlib
from typing import TYPE_CHECKING

from nisbjax.artifacts import VolumeDir
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.keys.checks import optional
from nisbjax.mask import mask_shape, open_mask, require_mask, require_region
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
      InputError: as `open_mask`, `require_region`, `require_mask` or
        `qc.stage.check_outputs`; or a `qc.image` of another shape.
    """
    from nisbjax.qc import stage

    mask = optional(config.decode.affinity_mask)
    if mask == "auto":
        stage.check_outputs(config.qc, paths(place, named))
        _require_image(config, image)
    elif mask:
        require_finished(mask)
        opened, pixels = open_mask(mask)
        whole, predicted = _shapes(config, image)
        region = _region(config, whole)
        if region != Box.whole(whole):
            require_region(
                mask,
                opened,
                region,
                f"{region} of {image} is going to be predicted; name a mask of that part "
                "or of the whole image, or set --config.decode.affinity_mask=",
            )
        # Of a mask of the whole image, the part is taken that is predicted.
        shape = whole if mask_shape(opened) == whole else predicted
        require_mask(opened, pixels, shape)


def _require_image(config: Config, image: str) -> None:
    """Refuses an image of neither what is predicted nor of what it is a part of."""
    named = optional(config.qc.image)
    if not named:
        return
    found, shapes = open_image(named).spatial_shape, _shapes(config, image)
    if found not in shapes:
        whole, predicted = shapes
        part = f", or {predicted} of the part that is predicted" * (whole != predicted)
        raise InputError(
            f"qc.image is {named} {found}; wanted the shape {whole} of {image}{part}"
        )


def _shapes(config: Config, image: str) -> tuple[Triple, Triple]:
    """Of an image, and of the affinities that it is going to have, x y z."""
    whole = open_image(image).spatial_shape
    return whole, _region(config, whole).shape


def _region(config: Config, whole: Triple) -> Box:
    """What is going to be predicted of an image of a shape."""
    roi = optional(config.predict.roi)
    return Box.parse(roi) if roi else Box.whole(whole)
