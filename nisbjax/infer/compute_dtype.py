"""Compute types of a prediction, and the bound that each of them has to hold.

BANIS and PyTC predict in float16 (autocast) without a bound. Here float32 is the rule and
another type is taken where it is known to change affinities by at most `ALLOWED` and the
decoded score by nothing but noise: `tests/slow/precision_test.py` measures that on the
demo's test volume. Norm statistics, head and activation are float32 in both.
"""

from typing import Any

from nisbjax.errors import InputError, require_choice
from nisbjax.models import build

COMPUTE = {word: build.COMPUTE[word] for word in ("fp32", "fp16")}
ALLOWED = 2e-3  # largest change of an affinity
# float16 moves logits by .02; the activation's slope decides what is seen of that.
FLATTEST = 0.2  # scale of `scale_sigmoid` with which that was measured


def compute_dtype(precision: str, activation: str, scale: float) -> Any:
    """The compute type of a word of `predict.precision`.

    Args:
      precision: `fp32`, or `fp16`.
      activation: as `predict.activation`.
      scale: of `scale_sigmoid`.

    Raises:
      InputError: another word, or a type that changes affinities by more than allowed.
    """
    if precision == "bf16":
        raise InputError(
            "predict.precision is 'bf16', which changes affinities by up to .009 (.04 "
            f"with a plain sigmoid) where {ALLOWED} is allowed; set it to fp32 or fp16"
        )
    require_choice("predict.precision", precision, COMPUTE)
    flat = activation == "scale_sigmoid" and abs(scale) <= FLATTEST
    if precision == "fp16" and not flat:
        raise InputError(
            f"predict.precision is 'fp16' with predict.activation {activation!r} (scale "
            f"{scale:g}), which changes affinities by up to .005 where {ALLOWED} is "
            f"allowed; set it to fp32, or scale_sigmoid with a scale of {FLATTEST} at most"
        )
    return COMPUTE[precision]
