"""One decode that is not begun: what is asked for, what it takes, what its file will say.

PyTC's segmentations are bare arrays; here each names the affinities, the mask, the method
and the software that made it.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from nisbjax.decode.methods import METHODS, Method, counting
from nisbjax.store import address, software
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import Volume
from nisbjax.typing import Section

# As predictions are chunked, so that boxes fit both; neuroglancer reads 1 to 4 MB at once.
_CHUNKS = (64, 128, 128)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What is asked for: one prediction's segments, in one file.

    Attributes:
      section: `decode`; where input, mask and output lie is said by others.
      cluster: `cluster`, which decodes boxes where the method is streamed.
      path: of the zarr array that is written.
      affinities: path of [c x y z].
      edge_stored_at: `source` or `destination`, where the file does not say.
      determined_by: the keys that determine the segments, with their values: an output
        that others made is refused.
      redo: an output that this stage made is replaced, whatever it was made with.
      told: whether the log says what is read and written; warnings are said anyhow.
    """

    section: Section
    cluster: Section
    path: pathlib.Path
    affinities: str | pathlib.Path
    edge_stored_at: str
    determined_by: Mapping[str, Any]
    redo: bool = False
    told: bool = True


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was checked, but for the mask.

    Attributes:
      section: `decode`.
      source: path of the affinities.
      affinities: [c x y z].
      edge_offset: theirs.
      made_from: what the segments are made from, without the mask.
      config_fingerprint: of the keys that determine the segments.
    """

    section: Section
    source: str
    affinities: Volume
    edge_offset: int
    made_from: dict[str, Any]
    config_fingerprint: str

    @property
    def method(self) -> Method:
        return METHODS[self.section.method]

    @property
    def parameters(self) -> Any:
        """Of the method, as its type says."""
        return self.method.parameters_of(self.section)

    @property
    def array(self) -> dict[str, Any]:
        """Shape, type and chunks of the segmentation."""
        shape = self.affinities.spatial_shape
        return {
            "shape": shape,
            "dtype": np.uint32 if math.prod(shape) < 2**32 else np.uint64,
            "chunks": _CHUNKS,
        }

    def attributes(self, mask: str | pathlib.Path) -> dict[str, Any]:
        """What the segmentation says of itself.

        Args:
          mask: its path; "" for none.
        """
        return {
            "axes": list("xyz"),
            "method": self.section.method,
            **self._parameters(),
            "mask": str(mask),
            "mask_edges": self.section.mask_edges,
            "min_size": self.section.min_size,
            "source": address.absolute(self.source),
            "source_fingerprint": self.made_from["affinities"],
            "mask_fingerprint": fingerprint(mask) if mask else "",
            "config_fingerprint": self.config_fingerprint,
            "software": software.NAME,
            **_inherited(self.affinities),
        }

    def _parameters(self) -> dict[str, Any]:
        """By their names; with a threshold, what it is for affinities of this type."""
        given = counting(self.parameters)
        if "threshold" not in given:  # which readers look for
            return {"parameters": list(given), **given}
        found = {}
        for name, value in given.items():
            found[name] = value
            if name == "threshold":
                found["compared_threshold"] = compared(value, self.affinities.dtype)
        return found


def compared(threshold: float, dtype: np.dtype) -> float:
    """The number that affinities are really compared with, rounded to their own type."""
    return threshold if dtype == np.uint8 else float(dtype.type(threshold))


def _inherited(affinities: Volume) -> dict[str, Any]:
    """What a segmentation says as its affinities do; of their image too, for scoring."""
    found = affinities.attributes
    names = {name: name for name in ("voxel_size_nm", "box", "volume_shape")}
    names |= {"source": "image", "source_fingerprint": "image_fingerprint"}
    return {new: found[name] for name, new in names.items() if name in found}
