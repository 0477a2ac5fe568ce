"""Compute types of a prediction, and the bound that each of them has to hold.

BANIS and PyTC predict in float16 (autocast) without a bound. Here float32 is the rule and
another type is taken where it is known to change affinities by at most `ALLOWED` and the
decoded score by nothing but noise: `tests/slow/precision_test.py` measures that on the
demo's test volume. Norm statistics, head and activation are float32 in both. The word `auto`
is settled before anything is made: what is recorded is the type, not how it was chosen.
"""

from typing import Any

import jax

from nisbjax.errors import InputError, require_choice
from nisbjax.models import build

COMPUTE = {word: build.COMPUTE[word] for word in ("fp32", "fp16")}
WORDS = ("auto", *COMPUTE)
ALLOWED = 2e-3  # largest change of an affinity
# float16 moves logits by .02; the activation's slope decides what is seen of that.
FLATTEST = 0.2  # scale of `scale_sigmoid` with which that was measured


def settled(precision: str, activation: str, scale: float) -> str:
    """The word that `auto` stands for here: `fp16` on a GPU where it is allowed, else `fp32`.

    Args:
      precision: `auto`; another word is given back.
      activation: as `predict.activation`.
      scale: of `scale_sigmoid`.
    """
    if precision != "auto":
        return precision
    return "fp16" if _on_gpu() and _is_flat(activation, scale) else "fp32"


def _on_gpu() -> bool:
    return jax.local_devices()[0].platform == "gpu"


def _is_flat(activation: str, scale: float) -> bool:
    return activation == "scale_sigmoid" and abs(scale) <= FLATTEST


def compute_dtype(precision: str, activation: str, scale: float) -> Any:
    """The compute type of a word of `predict.precision`.

    Args:
      precision: `auto`, `fp32`, or `fp16`.
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
    precision = settled(precision, activation, scale)
    require_choice("predict.precision", precision, WORDS)
    if precision == "fp16" and not _is_flat(activation, scale):
        raise InputError(
            f"predict.precision is 'fp16' with predict.activation {activation!r} (scale "
            f"{scale:g}), which changes affinities by up to .005 where {ALLOWED} is "
            f"allowed; set it to fp32, or scale_sigmoid with a scale of {FLATTEST} at most"
        )
    return COMPUTE[precision]
