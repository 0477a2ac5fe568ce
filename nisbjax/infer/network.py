"""The network of a prediction: from a checkpoint, or as it is drawn from the seed.

Parameters are identified by a hash of their bytes, which goes into the affinities'
attributes; BANIS and PyTC name the checkpoint's file alone.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nisbjax.checkpoint import checkpoint, restore
from nisbjax.infer.compute_dtype import compute_dtype
from nisbjax.infer.conversion import Apply
from nisbjax.models import build
from nisbjax.models.kernels import on_device
from nisbjax.models.kernels.choice import Kernels, Recorder
from nisbjax.parallel import compilation_cache
from nisbjax.typing import Section, Triple


@dataclasses.dataclass(frozen=True)
class Network:
    """A function of parameters and images, and where its parameters come from.

    Attributes:
      apply: (params, images [b x y z c]) -> logits [b x y z o].
      params: pytree of arrays.
      facts: checkpoint step, `ema` or `raw`, sha256 of the parameters; for attributes.
      in_channels: c.
      make_apply: kernels -> `apply` as they compute it; None where there is one way.
      kernels: word of `model.kernels`.
    """

    apply: Apply
    params: Any
    facts: dict[str, Any]
    in_channels: int = 1
    make_apply: Callable[[Kernels | Recorder | None], Apply] | None = None
    kernels: str = "auto"

    def apply_to(self, batch: int, window: Triple) -> Apply:
        """`apply`, by the kernels that are the fastest on this process's devices.

        Args:
          batch: windows that a device takes at a time.
          window: their shape.
        """
        make = self.make_apply
        if make is None:
            return self.apply
        shape = (batch, *window, self.in_channels)
        images = jax.ShapeDtypeStruct(shape, np.float32)

        def record(recorder: Recorder) -> None:
            jax.eval_shape(make(recorder), self.params, images)

        return make(on_device.kernels_for(self.kernels, record))


def load_network(
    section: Section, model: Mapping[str, Any], path: pathlib.Path
) -> Network:
    """The network of a checkpoint, with the weights that `predict.weights` names.

    Args:
      section: `predict`: its `weights`, and `precision` with the activation that it goes
        with.
      model: arguments of the network, the keys `model`.
      path: of a checkpoint, or of the run that holds it (the newest is taken).

    Raises:
      InputError: no checkpoint there, it is of another model, or no such precision or
        kernels.
    """
    found = checkpoint.find(path, checkpoint.weight_items(section.weights))
    checkpoint.require_model(found, build.describe(model))
    like = build.abstract_params(model)
    params = restore.weights(found, section.weights, like)
    facts = {"weights": section.weights, "step": checkpoint.step_of(found)}
    return _network(section, model, params, facts)


def untrained_network(section: Section, model: Mapping[str, Any], seed: int) -> Network:
    """The network as it is drawn from the seed, for comparison.

    Args:
      section: `predict`, as in `load_network`.
      model: arguments of the network, the keys `model`.
      seed: of its weights.

    Raises:
      InputError: no such precision, or kernels.
    """
    params = build.initial_params(model, seed)
    return _network(section, model, params, {"weights": "untrained", "step": 0})


def _network(
    section: Section, model: Mapping[str, Any], params: Any, facts: dict[str, Any]
) -> Network:
    compilation_cache.begin()
    dtype = compute_dtype(section.precision, section.activation, section.scale)
    kernels = model.get("kernels", "auto")
    on_device.require_device(kernels)

    def make(chosen: Kernels | Recorder | None) -> Apply:
        apply = build.make_apply(model, dtype, remat=False, kernels=chosen)
        return _finest(apply) if model["deep_supervision"] else apply

    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(params)):
        digest.update(np.ascontiguousarray(leaf).data)
    facts = facts | {"params_sha256": digest.hexdigest()}
    return Network(make(None), params, facts, model["in_channels"], make, kernels)


@functools.lru_cache(maxsize=4)  # one function of one network, as `make_apply`
def _finest(pyramid: Apply) -> Apply:
    return lambda params, images: pyramid(params, images)[0]
