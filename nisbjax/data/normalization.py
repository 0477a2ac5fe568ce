"""How the grey values of a volume become network inputs, wherever they are read.

A volume is scaled by what it holds, never by what a crop, a window or a box of it holds: the
statistics are of the whole of it, made once and kept beside the run, so that training,
validation and prediction see one image. Scaling by a range is left to the device; what
differs from slice to slice, or from place to place, is a view of the volume. PyTC normalises
each of its volumes whole in memory, or each crop by itself.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging

from nisbjax.data import clahe, slice_ranges
from nisbjax.data.intensity import UNBOUNDED, Scale, intensity_range, mean_and_deviation
from nisbjax.errors import require_choice
from nisbjax.store import files, npy
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import Volume
from nisbjax.typing import Section

NORMALIZATIONS = ("divide_255", "range", "min_max", "percentile", "zscore", "clahe")
PER = ("volume", "slice")
_IN_MEMORY: dict[str, dict[str, np.ndarray]] = {}  # statistics of this process


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Values of the keys `data.normalize` and those that go with it.

    Attributes:
      kind: `divide_255`; `range`, by `grey_range`; `min_max` and `percentile`, by what the
        volume holds; `zscore`, by its mean and standard deviation, unbounded; `clahe`, see
        `clahe`; `none` takes values as they are, NaN and Inf as 0.
      percentiles: of `percentile`, and of `clahe` on anything but bytes.
      per: `min_max`, `percentile` and `zscore` of the whole `volume`, or of each `slice` of z.
      grey_range: that becomes 0 and 1 under `range`.
      invert: dark becomes bright.
      tile: edge of a tile of `clahe`, in voxels.
      clip: of `clahe`: the largest share of a tile's voxels that counts in one grey level.
      kept: folder of the statistics; "" to keep them in memory alone.
    """

    kind: str = "divide_255"
    percentiles: tuple[float | int, ...] = (0.0, 100.0)
    per: str = "volume"
    grey_range: tuple[float | int, ...] = (0.0, 255.0)
    invert: bool = False
    tile: int = 128
    clip: float = 0.01
    kept: str = dataclasses.field(default="", compare=False)

    @classmethod
    def of(cls, section: Section, kept: str | os.PathLike = "") -> "Normalization":
        """From the section `data`, or what stands in its place for a source."""
        return cls(
            section.normalize,
            tuple(section.percentiles),
            section.normalize_per,
            tuple(section.grey_range),
            section.invert,
            section.clahe_tile,
            section.clahe_clip,
            os.fspath(kept),
        )

    @property
    def reads(self) -> bool:
        """Whether a volume is read for it before anything is made of it."""
        return self.kind not in ("divide_255", "range", "none")

    def dtype(self, image: Volume) -> np.dtype:
        """The type in which an image is read then."""
        if self.kind == "clahe":
            return np.dtype(np.uint8)
        by_slice = self.per == "slice" and self.reads
        return np.dtype(np.float32) if by_slice else image.dtype

    def applied(self, image: Volume) -> tuple[Volume, Scale]:
        """A whole image as it is to be read, and how what is read is scaled.

        Args:
          image: [x y z c], all of it.

        Raises:
          InputError: another word for `kind` or `per`, or an image that does not suit it.
        """
        if self.kind == "none":
            return image, Scale(0.0, 1.0, *UNBOUNDED)
        require_choice("data.normalize", self.kind, NORMALIZATIONS)
        require_choice("data.normalize_per", self.per, PER)
        if self.kind == "clahe":
            return self._equalized(image)
        if self.per == "slice" and self.reads:
            return self._by_slice(image)
        low, high = self._range(image)
        bounds = UNBOUNDED if self.kind == "zscore" else (0.0, 1.0)
        if self.invert and self.kind == "zscore":
            high = 2 * low - high
        elif self.invert:
            low, high = high, low
        return image, Scale(low, high, *bounds)

    def _range(self, image: Volume) -> tuple[float, float]:
        if self.kind == "range":
            low, high = map(float, self.grey_range)
            return low, high
        if not self.reads:
            return intensity_range(image, self.kind)

        def make() -> dict[str, np.ndarray]:
            if self.kind == "zscore":
                return {"range": np.array(mean_and_deviation(image), np.float64)}
            found = intensity_range(image, self.kind, self.percentiles)
            return {"range": np.array(found, np.float64)}

        low, high = map(float, self._known(image, make)["range"])
        return low, high

    def _by_slice(self, image: Volume) -> tuple[Volume, Scale]:
        def make() -> dict[str, np.ndarray]:
            return {"slices": slice_ranges.ranges(image, self.kind, self.percentiles)}

        table = self._known(image, make)["slices"]
        if self.invert and self.kind == "zscore":
            table = np.stack([table[:, 0], 2 * table[:, 0] - table[:, 1]], 1)
        elif self.invert:
            table = table[:, ::-1]
        bounds = UNBOUNDED if self.kind == "zscore" else (0.0, 1.0)
        return slice_ranges.scaled(image, table, bounds), Scale(0.0, 1.0, *bounds)

    def _equalized(self, image: Volume) -> tuple[Volume, Scale]:
        between = (0.0, 255.0)

        def make() -> dict[str, np.ndarray]:
            grey = between
            if image.dtype != np.uint8:
                grey = intensity_range(image, "percentile", self.percentiles)
            tables = clahe.tables(image, grey, self.tile, self.clip)
            return {"tables": tables, "range": np.array(grey, np.float64)}

        found = self._known(image, make)
        low, high = map(float, found["range"])
        view = clahe.equalized(image, found["tables"], (low, high))
        ends = (255.0, 0.0) if self.invert else (0.0, 255.0)
        return view, Scale(*ends)

    def _known(
        self, image: Volume, make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Statistics of an image: those that are kept, or made now and kept."""
        if image.source == "memory":
            return make()
        key = self._key(image)
        path = pathlib.Path(self.kept) / f"{key}.npz" if self.kept else None
        if key not in _IN_MEMORY:
            found = _read(path) if path is not None else None
            if found is None:
                logging.info("reading the grey values of %s", image.source)
            _IN_MEMORY[key] = found or make()
        if path is not None and not path.exists():
            with files.replacing(path) as part, open(part, "wb") as file:
                np.savez_compressed(file, allow_pickle=False, **_IN_MEMORY[key])
        return _IN_MEMORY[key]

    def _key(self, image: Volume) -> str:
        """Of the image's content and of what its statistics depend on."""
        facts: dict[str, Any] = {"image": fingerprint(image.source), "kind": self.kind}
        if self.kind != "clahe":
            facts["per"] = self.per
        if self.kind in ("percentile", "clahe"):
            facts["percentiles"] = [float(p) for p in self.percentiles]
        if self.kind == "clahe":
            facts |= {"tile": self.tile, "clip": float(self.clip)}
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _read(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    """Statistics that are kept; None where there are none, or no whole ones."""
    if not path.exists():
        return None
    try:
        with open(path, "rb") as opened, npy.Archive(opened) as found:
            return found.all()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged (%s); it is made again", path, error)
        path.unlink()
        return None
