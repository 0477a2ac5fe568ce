"""Statistics taken while a prediction is written, so that QC reads no voxel again.

PyTC's streaming QC sums over another axis than its scan, and does not survive a restart.
Here the statistics of each finished slab lie on disk before the slab counts as done, and
are merged in one order at the end.
"""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Shaped

from nisbjax.geometry import Box
from nisbjax.qc import statistics, statistics_file
from nisbjax.qc.border import Border, find_border
from nisbjax.store.regions import part_like, region_of
from nisbjax.store.volume import Volume
from nisbjax.typing import Section, Triple

_BORDER = ("n_z_border", "border_width", "bg_thresh")  # keys that choose its voxels


def begin(
    section: Section, path: pathlib.Path, image: Volume, prediction: Volume
) -> "Gathering":
    """Statistics of a prediction that is about to be written.

    Args:
      section: `qc`.
      path: of the statistics, once all are there.
      image: of which all or a part is predicted; the border rows need one of its shape.
      prediction: [c x y z], with its attributes.
    """
    pixels = part_like(image, prediction)
    border = None
    if pixels.spatial_shape == prediction.spatial_shape:
        border = border_of(pixels, section, prediction)
    return Gathering(
        pathlib.Path(prediction.source) / ".planes",  # goes where the prediction goes
        path,
        prediction.shape[0],
        prediction.spatial_shape,
        identity(prediction.attributes, section),
        border,
    )


class Gathering:
    """Statistics of the slabs of one prediction.

    Args:
      folder: for those of single slabs, until all are there.
      path: of the statistics of the whole.
      channels: of the prediction.
      shape: of the prediction, x y z.
      made_from: says which prediction and which border.
      border: where the border rows look, None to leave them out.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        path: pathlib.Path,
        channels: int,
        shape: Triple,
        made_from: str,
        border: Border | None,
    ):
        self._folder = folder
        self._path = path
        self._channels = channels
        self._shape = shape
        self._made_from = made_from
        self._border = border

    def _slab(self, key: str) -> pathlib.Path:
        return self._folder / f"{key.replace(':', '-').replace(',', '_')}.npz"

    def observe(
        self, box: Box, values: Shaped[np.ndarray, "c x y z"]
    ) -> dict[str, Any]:
        """Measures one slab and writes that down; call it before the slab is recorded."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = statistics.measure(values, box.start, self._border, self._shape)
        statistics_file.save(part, self._slab(str(box)), self._made_from)
        return {}

    def finish(self, keys: Sequence[str]) -> None:
        """Merges the slabs into one file, unless some of them are unknown or overlap.

        Call it before the prediction counts as finished: a kill on the way is then resumed,
        and the folder of the slabs does not stay.

        Args:
          keys: the slabs' boxes, as text.
        """
        if statistics_file.load(self._path, self._made_from) is None:
            self._merge(keys)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _merge(self, keys: Sequence[str]) -> None:
        boxes = sorted(map(Box.parse, keys), key=lambda box: box.start)
        whole = statistics.empty(self._shape, self._channels, self._border)
        for box in boxes:
            part = statistics_file.load(self._slab(str(box)), self._made_from)
            if part is None:
                logging.info("no statistics of %s were gathered; QC will scan", box)
                break
            whole.merge(part, z=box.start[2])
        else:
            # Slabs of an earlier attempt with another budget may overlap later ones.
            if sum(box.size for box in boxes) == Box.whole(self._shape).size:
                statistics_file.save(whole, self._path, self._made_from)


def border_of(image: Volume, section: Section, prediction: Volume) -> Border:
    """The border's planes of an image, as the section `qc` says.

    Args:
      image: of the prediction's shape.
      section: `qc`.
      prediction: of a volume or of a part of one, whose ring is the volume's.
    """
    region, shape = region_of(prediction)
    return find_border(
        image,
        start=region.start,
        volume=shape,
        n_z_border=section.n_z_border,
        width=section.border_width,
        thresh=float(section.bg_thresh),
    )


def identity(attributes: Mapping[str, Any], section: Section) -> str:
    """sha256 of what determines the statistics of one of our own predictions.

    Args:
      attributes: of the prediction.
      section: `qc`.
    """
    made_by = ("config_fingerprint", "source_fingerprint", "network", "box")
    facts = {key: attributes.get(key) for key in made_by}
    facts |= {key: float(section[key]) for key in _BORDER}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
