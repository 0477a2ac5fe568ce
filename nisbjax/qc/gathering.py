"""Statistics taken while a prediction is written, so that QC reads no voxel again.

PyTC's streaming QC sums over another axis than its scan, and does not survive a restart.
Here the statistics of each finished slab lie on disk before the slab counts as done, and
are merged in one order at the end.
"""

import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Shaped

from nisbjax.geometry import Box
from nisbjax.qc import statistics
from nisbjax.qc.border import Border
from nisbjax.typing import Triple


class Gathering:
    """Statistics of the slabs of one prediction.

    Args:
      folder: for those of single slabs, until all are there.
      channels: of the prediction.
      shape: of the prediction, x y z.
      made_from: says which prediction and which border.
      border: where the border rows look, None to leave them out.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        channels: int,
        shape: Triple,
        made_from: str,
        border: Border | None,
    ):
        self._folder = folder
        self._channels = channels
        self._shape = shape
        self._made_from = made_from
        self._border = border

    def _path(self, key: str) -> pathlib.Path:
        return self._folder / f"{key.replace(':', '-').replace(',', '_')}.npz"

    def observe(
        self, box: Box, values: Shaped[np.ndarray, "c x y z"]
    ) -> dict[str, Any]:
        """Measures one slab and writes that down; call it before the slab is recorded."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = statistics.measure(values, box.start, self._border, self._shape)
        statistics.save(part, self._path(str(box)), self._made_from)
        return {}

    def finish(self, keys: Sequence[str], path: pathlib.Path) -> None:
        """Merges the slabs into one file, unless some of them are unknown or overlap.

        Call it before the prediction counts as finished: a kill on the way is then gone on
        from, and the folder of the slabs does not stay.

        Args:
          keys: the slabs' boxes, as text.
          path: of the merged statistics.
        """
        if statistics.load(path, self._made_from) is None:
            self._merge(keys, path)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _merge(self, keys: Sequence[str], path: pathlib.Path) -> None:
        boxes = sorted(map(Box.parse, keys), key=lambda box: box.start)
        whole = statistics.empty(self._shape, self._channels, self._border)
        for box in boxes:
            part = statistics.load(self._path(str(box)), self._made_from)
            if part is None:
                logging.info("no statistics of %s were gathered; QC will scan", box)
                break
            whole.merge(part, z=box.start[2])
        else:
            # Slabs of an earlier attempt with another budget may overlap later ones.
            if sum(box.size for box in boxes) == Box.whole(self._shape).size:
                statistics.save(whole, path, self._made_from)
