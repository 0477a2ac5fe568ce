"""A Pallas kernel as a function of arrays: compiled on a GPU, interpreted elsewhere.

Source: `jax.experimental.pallas`, its Triton route. We differ from a plain `pallas_call` in
leaving the choice to the platform that a program is lowered for, so that a machine without
a GPU can lower for one and compute the same values by interpretation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt


def call(
    body: Callable[..., None],
    grid: tuple[int, ...],
    outputs: Sequence[jax.ShapeDtypeStruct],
    warps: int,
    name: str,
    stages: int = 1,
) -> Callable[..., list[Any]]:
    """(*arrays) -> what `body` writes.

    Args:
      body: the kernel: references of the arrays, then of the outputs; `on_gpu` tells it
        whether it is compiled for one.
      grid: programs along each of up to three axes.
      outputs: shapes and types.
      warps: of 32 threads in a program.
      name: of the kernel in a profile.
      stages: of the pipeline that fetches what products in a loop need.
    """
    parameters = plt.CompilerParams(num_warps=warps, num_stages=stages)
    compiled = pl.pallas_call(
        _named(body, name, on_gpu=True),
        grid=grid,
        out_shape=list(outputs),
        compiler_params=parameters,
        name=name,
    )
    interpreted = pl.pallas_call(
        _named(body, name, on_gpu=False),
        grid=grid,
        out_shape=list(outputs),
        interpret=True,
        name=name,
    )

    if jax.default_backend() == "gpu":  # tracing the other would take as long again
        return compiled

    def run(*arrays: Any) -> list[Any]:
        return list(lax.platform_dependent(*arrays, cuda=compiled, default=interpreted))

    return run


def _named(
    body: Callable[..., None], name: str, **settings: bool
) -> Callable[..., None]:
    """A kernel that is called so in a profile, which takes the function's own name."""

    def kernel(*references: Any) -> None:
        body(*references, **settings)

    kernel.__name__ = kernel.__qualname__ = name
    return kernel
