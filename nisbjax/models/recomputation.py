"""What a block keeps for its gradient, and what the backward pass computes again.

Source: gradient checkpointing (arXiv:1604.06174), which `nnunet_mednext` offers for whole
blocks or not at all. We differ by a third choice: the depthwise result and its moments are
kept, which cost most to compute, and what follows from them is computed again.

    block      keeps a block's input alone
    expansion  its depthwise result too, with the mean and variance of each channel
    none       whatever the gradient reads, the normed values too

In none of them the hidden values of the expansion are kept, see `blocks.mlp`.
"""

from collections.abc import Callable
from typing import Any

import jax

from nisbjax.errors import InputError

CHOICES = ("block", "expansion", "none")


def recomputation(remat: str | bool) -> str:
    """One of `CHOICES`; True and False, of older configurations, are block and none.

    Raises:
      InputError: it is none of them.
    """
    if isinstance(remat, bool):
        return "block" if remat else "none"
    if remat not in CHOICES:
        raise InputError(
            f"model.remat is {remat!r}; wanted one of {', '.join(CHOICES)}"
        )
    return remat


def again(
    part: str, function: Callable[..., Any], remat: str | bool, **options: Any
) -> Callable[..., Any]:
    """A part of the network, computed again by its gradient where that is chosen.

    Not by a policy that keeps named values: it has XLA compute them twice on a CPU.

    Args:
      part: block or expansion, what the function is.
      function: of arrays and trees of arrays.
      remat: one of `CHOICES`.
      options: of `jax.checkpoint`.

    Raises:
      InputError: see `recomputation`.
    """
    chosen = recomputation(remat) == part
    return jax.checkpoint(function, **options) if chosen else function
