"""What a study tunes on: affinities under their mask, their truth, and which they are.

PyTC's studies do not say what they scored, so that any of the same name is continued; here
the facts stand in the study and are compared.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.evaluate.truth import Truth
from nisbjax.geometry import Box
from nisbjax.mask import MaskSpec
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import Volume


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of one study.

    Attributes:
      prediction: path of affinities [c x y z]; "" where there are none yet.
      truth: of their volume: skeletons, or dense labels where it has none.
      determined_by: keys besides those that are tuned by which scores change, and their
        values; see `keys.determines`.
      edges: which of the affinities count, as in testing.
      on_test: whether they are those of the test volume.
      mask: path of the mask in `edges`; "" where it is none of a file.
      mask_part: the region that is taken of it; None where it is all of it.
    """

    prediction: str
    truth: Truth
    determined_by: Mapping[str, Any]
    edges: MaskedEdges = dataclasses.field(default_factory=MaskedEdges)
    on_test: bool = False
    mask: str = ""
    mask_part: Box | None = None

    def made_from(self, parameters: Iterable[str], objective: str) -> dict[str, Any]:
        """What the values of a study depend on, apart from its parameters.

        Args:
          parameters: names of those that are tuned.
          objective: of `objective.OBJECTIVES`.
        """
        parameters = sorted(parameters)
        return {
            "prediction": fingerprint(self.prediction) if self.prediction else "",
            **self.truth.facts(),
            "mask": self._mask(),
            "metric": objective,
            "parameters": parameters,
            **{
                key: value
                for key, value in self.determined_by.items()
                if key.removeprefix("decode.") not in parameters
            },
        }

    def known_by_now(self, parameters: Iterable[str], objective: str) -> dict[str, Any]:
        """Those of `made_from` that are known before there is a mask, or a prediction."""
        unknown = {"mask"} if self.prediction else {"mask", "prediction"}
        facts = self.made_from(parameters, objective)
        return {key: facts[key] for key in facts if key not in unknown}

    def _mask(self) -> Any:
        mask = self.edges.mask
        if isinstance(mask, MaskSpec):
            return mask.facts()
        if isinstance(mask, Volume):
            # A part's own source is a name with a box behind it, which is no file's.
            known, part = fingerprint(self.mask or mask.source), self.mask_part
            return known if part is None else f"{known} [{part}]"
        return "none" if mask is None else "array"
