"""The files that keys name for what is made of a volume.

`predict.output`, `qc.report`, `mask.output` and `decode.output` are read here, once; what is
not named stands in the volume's own folder. A mode that makes many of a kind (validate, the
demo's second network) names none or its own.
"""

import dataclasses
from collections.abc import Sequence

from nisbjax.keys.checks import optional
from nisbjax.typing import Config


@dataclasses.dataclass(frozen=True)
class NamedOutputs:
    """Paths of outputs; "" where the volume's folder has its own.

    Attributes:
      prediction: affinities, `.zarr` or `.h5`.
      report: of QC.
      mask: that is built from it.
      segmentation: a zarr array.
      redo: stages, `predict`, `decode` or `tune`, whose outputs are replaced, named or not.
    """

    prediction: str = ""
    report: str = ""
    mask: str = ""
    segmentation: str = ""
    redo: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config, redo: Sequence[str] = ()) -> "NamedOutputs":
        """What a configuration names, and `--redo`."""
        return cls(
            prediction=optional(config.predict.output),
            report=optional(config.qc.report),
            mask=optional(config.mask.output),
            segmentation=optional(config.decode.output),
            redo=tuple(redo),
        )


OWN = NamedOutputs()
