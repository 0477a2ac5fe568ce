"""What XLA is told beside a program, on GPUs alone.

Source: XLA's debug options (`xla/debug_options_flags.cc`). They come and go with its versions:
each is tried once on a program of nothing, and left out where this XLA does not know it.
"""

import functools
from typing import Any

import jax
from absl import logging

from nisbjax.parallel import hosts

Options = dict[str, Any]

# It compiles fusions a second time by Triton, to compare: minutes, for those of large arrays.
_FUSIONS_AS_THEY_ARE: Options = {"xla_gpu_experimental_enable_fusion_autotuner": False}
# Products by cuBLAS alone: Triton's are dozens of programs for each shape.
_BY_LIBRARIES: Options = {"xla_gpu_enable_triton_gemm": False}
_UNTUNED: Options = {"xla_gpu_autotune_level": 0}
# XLA would wait for the other processes to tune their share of a program.
_ALONE: Options = {"xla_gpu_shard_autotuning": False}


def network() -> Options | None:
    """For a training step or a forward pass."""
    return _known(_FUSIONS_AS_THEY_ARE | _BY_LIBRARIES)


def alone() -> Options | None:
    """As `network`, for a program that this process compiles and others do not."""
    more = _ALONE if hosts.several() else {}
    return _known(_FUSIONS_AS_THEY_ARE | _BY_LIBRARIES | more)


def untuned() -> Options | None:
    """For a program whose result counts, and not its speed."""
    more = _ALONE if hosts.several() else {}
    return _known(_FUSIONS_AS_THEY_ARE | _BY_LIBRARIES | _UNTUNED | more)


def _known(wanted: Options) -> Options | None:
    """Those that this XLA takes; None where there are none, as on a CPU."""
    if jax.default_backend() != "gpu":
        return None
    return {name: value for name, value in wanted.items() if _takes(name, value)}


@functools.cache
def _takes(name: str, value: bool | int) -> bool:
    nothing = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((), "float32"))
    try:
        option: Options = {name: value}
        nothing.compile(compiler_options=option)
    except Exception as error:  # noqa: BLE001 - an XLA that does not know it may say so anyhow
        logging.debug("XLA is not told %s: %s", name, str(error)[:200])
        return False
    return True
