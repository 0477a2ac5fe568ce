"""MedNeXt v1 (arXiv:2303.09975), sizes S, B, M and L, in Flax NNX.

Source: `nnunet_mednext`, whose parameter names are kept (`enc_block_0.conv1.weight`).
Upsampling pads on the low side and skips are added, as there. We differ in storage: the
equal blocks of a stage are one module whose parameters have a leading block axis, so
that a stage is one `lax.scan` and compiles once however deep it is.
"""

import functools
import math
from collections.abc import Callable, Sequence
from numbers import Integral
from operator import index
from typing import Any, cast

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float32, Num

from nisbjax.errors import InputError
from nisbjax.models import blocks, forward, halo
from nisbjax.models.kernels import fused
from nisbjax.models.parameters import Block, Head, uniform
from nisbjax.models.recomputation import again, recomputation
from nisbjax.typing import Triple

# Expansions and block counts of enc 0-3, bottleneck, dec 3-0.
SIZES = {
    "S": ((2,) * 9, (2,) * 9),
    "B": ((2, 3, 4, 4, 4, 4, 4, 3, 2), (2,) * 9),
    "M": ((2, 3, 4, 4, 4, 4, 4, 3, 2), (3, 4, 4, 4, 4, 4, 4, 4, 3)),
    "L": ((3, 4, 8, 8, 8, 8, 8, 4, 3), (3, 4, 8, 8, 8, 8, 8, 4, 3)),
}
KERNEL_SIZES = (3, 5, 7)
LEVELS = 4


class MedNeXt(nnx.Module):
    """Image [b x y z c] to logits [b x y z o].

    Args:
      size: S, B, M or L.
      kernel_size: 3, 5 or 7 for every depthwise convolution.
      in_channels: image channels.
      out_channels: logits per voxel, one per affinity offset.
      channels: width of the first level; level i has channels * 2^i (32 published).
      strides: from each level to the next, four triples.
      kernels: instead of `kernel_size`, one odd triple per level, five in all; the
        blocks between two levels take the finer one's.
      deep_supervision: heads on the coarser decoder levels and the bottleneck too.
      remat: what the backward pass computes again of each block: block (all of it),
        expansion or none; True is block, False none. See `recomputation`.
      dtype: compute dtype; statistics and head stay in float32.
      param_dtype: dtype of the parameters.
      space: mesh axis over which x is split, for calls under `shard_map` on a device's
        part of the image (its size then counts parts); None for whole images.
      operations: by which kernels its operations are computed, or who notes them; None
        for XLA, without asking.

    Raises:
      InputError: an argument that names no such network; when called, an image whose
        rank, dtype, channels or size do not fit it.
    """

    def __init__(
        self,
        size: str = "L",
        kernel_size: int = 3,
        in_channels: int = 1,
        out_channels: int = 6,
        channels: int = 32,
        strides: Sequence[Triple] = ((2, 2, 2),) * LEVELS,
        kernels: Sequence[Triple] | None = None,
        deep_supervision: bool = False,
        remat: str | bool = "block",
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        space: halo.SplitAxis | None = None,
        operations: fused.Runner | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        self.space = space
        self.operations = operations
        self.strides, self.kernels = _checked(
            size, kernel_size, in_channels, out_channels, channels, strides, kernels
        )
        self.in_channels = in_channels
        self.deep_supervision = deep_supervision
        self.remat = recomputation(remat)
        self.dtype = _floating("dtype", dtype)
        param_dtype = _floating("param_dtype", param_dtype)
        expansions, counts = SIZES[size]
        width = [channels << level for level in range(LEVELS + 1)]

        def stage(level: int, index: int) -> Block:
            return Block(
                width[level],
                expansions[index],
                self.kernels[level],
                width[level],
                param_dtype,
                rngs=rngs,
                stack=(counts[index],),
            )

        self.stem = uniform(
            rngs, (in_channels, channels), channels, in_channels, param_dtype
        )
        for level in range(LEVELS):
            setattr(self, f"enc_block_{level}", stage(level, level))
            down = Block(
                width[level],
                expansions[level + 1],
                self.kernels[level],
                width[level + 1],
                param_dtype,
                rngs=rngs,
                residual_fan_in=width[level],
            )
            setattr(self, f"down_{level}", down)
        self.bottleneck = stage(LEVELS, LEVELS)
        for level in reversed(range(LEVELS)):
            up = Block(
                width[level + 1],
                expansions[2 * LEVELS - level],
                self.kernels[level],
                width[level],
                param_dtype,
                rngs=rngs,
                residual_fan_in=width[level],
            )
            setattr(self, f"up_{level}", up)
            setattr(self, f"dec_block_{level}", stage(level, 2 * LEVELS - level))
        for level in range(LEVELS + 1 if deep_supervision else 1):
            head = Head(width[level], out_channels, param_dtype, rngs=rngs)
            setattr(self, f"out_{level}", head)

    def __call__(self, images: Num[Array, "b x y z c"]) -> Float32[Array, "b x y z o"]:
        """Logits at full resolution."""
        return self._logits(self._features(images), 0)

    def pyramid(
        self, images: Num[Array, "b x y z c"]
    ) -> tuple[Float32[Array, "b _x _y _z o"], ...]:
        """Logits of every head, full resolution first; one without deep supervision."""
        features = self._features(images)
        heads = range(LEVELS + 1 if self.deep_supervision else 1)
        logits = [self._logits(features, i) for i in heads]
        for i, space in enumerate(self._split(images)[: len(logits)]):
            if self.space and not space:  # handed out in parts, as the others
                logits[i] = halo.own_part(logits[i], self.space)
        return tuple(logits)

    def _logits(self, features: list[Array], level: int) -> Array:
        return getattr(self, f"out_{level}")(features[level])

    def _features(self, images: Array) -> list[Array]:
        """Decoder output of each level, full resolution first, bottleneck last."""
        self._check(images)
        split = self._split(images)
        x = blocks.pointwise(images.astype(self.dtype), self.stem.parameters())
        skips = []
        for level, strides in enumerate(self.strides):
            here, below = split[level : level + 2]
            x = self._stage(x, f"enc_block_{level}", here)
            skips.append(x)
            x = self._down(x, f"down_{level}", strides, here)
            if here and not below:
                x = halo.whole(x, here)
        x = self._stage(x, "bottleneck", split[-1])
        features = [x]
        for level in reversed(range(LEVELS)):
            here, below = split[level : level + 2]
            if here and not below:
                x = halo.own_part(x, here)
            strides = self.strides[level]
            x = self._up(x, f"up_{level}", strides, here)
            x = self._stage(x + skips.pop(), f"dec_block_{level}", here)
            features.append(x)
        return features[::-1]

    def _split(self, images: Array) -> list[halo.SplitAxis | None]:
        """What splits the x axis of each level."""
        if self.space is None:
            return [None] * (LEVELS + 1)
        planes = images.shape[1] * self.space.size
        return halo.levels(planes, self.strides, self.kernels, self.space)

    def _stage(self, x: Array, name: str, space: halo.SplitAxis | None) -> Array:
        """All blocks of a stage, compiled once."""
        parameters = getattr(self, name).parameters()
        if space is None and self.operations is not None:
            return fused.stage(x, parameters, self.operations, self.remat)
        if space is None:
            return forward.stage(x, parameters, self.remat)
        return forward.plain_stage(x, parameters, self.remat, space)

    def _down(
        self, x: Array, name: str, strides: Triple, space: halo.SplitAxis | None
    ) -> Array:
        if space is None and self.operations is not None:
            parameters = getattr(self, name).parameters()
            return fused.down_block(x, parameters, strides, self.operations, self.remat)
        options = {"strides": strides, "space": space, "remat": self.remat}
        down = functools.partial(blocks.down_block, **options)
        return again("block", down, self.remat)(x, getattr(self, name).parameters())

    def _up(
        self, x: Array, name: str, strides: Triple, space: halo.SplitAxis | None
    ) -> Array:
        parameters = getattr(self, name).parameters()
        if space is None and self.operations is not None:
            return fused.up_block(x, parameters, strides, self.operations, self.remat)
        if space is None:
            return forward.up_block(x, parameters, strides, self.remat)
        options = {"strides": strides, "space": space, "remat": self.remat}
        up = functools.partial(blocks.up_block, **options)
        return again("block", up, self.remat)(x, parameters)

    def _check(self, images: Array) -> None:
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(
                f"MedNeXt got a {images.dtype} image, wanted floating point; divide "
                "the bytes by 255 first"
            )
        if images.ndim != 5 or images.shape[-1] != self.in_channels:
            raise InputError(
                f"MedNeXt got an image of shape {images.shape}, wanted "
                f"[b x y z {self.in_channels}]; set model.in_channels to the image's"
            )
        x, y, z = images.shape[1:4]
        self.require_shape((x * (self.space.size if self.space else 1), y, z))

    def require_shape(self, shape: Triple) -> None:
        """Refuses images of a shape x y z that the levels do not divide.

        Raises:
          InputError: naming what they divide.
        """
        factors = tuple(math.prod(axis) for axis in zip(*self.strides))
        if any(size % f or not size for size, f in zip(shape, factors)):
            raise InputError(
                f"MedNeXt got an image of {shape} voxels, wanted multiples "
                f"of {factors}, the product of its strides; choose such a patch"
            )


def _checked(
    size, kernel_size, in_channels, out_channels, channels, strides, kernels
) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Strides and per-level kernels as tuples of triples, or an InputError."""
    if size not in tuple(SIZES):
        raise InputError(f"MedNeXt size {size!r} is not one of {sorted(SIZES)}")
    if kernels is None and kernel_size not in KERNEL_SIZES:
        raise InputError(
            f"MedNeXt kernel_size {kernel_size!r} is not one of {KERNEL_SIZES}"
        )
    for name, count in (
        ("in_channels", in_channels),
        ("out_channels", out_channels),
        ("channels", channels),
    ):
        if not isinstance(count, Integral) or count < 1:
            raise InputError(
                f"MedNeXt got {name}={count!r}, wanted at least 1, a whole number"
            )
    if kernels is None:
        kernels = ((kernel_size,) * 3,) * (LEVELS + 1)
    return (
        _triples("strides", strides, LEVELS, "1 or more", lambda n: n >= 1),
        _triples(
            "kernels", kernels, LEVELS + 1, "odd sizes", lambda n: n % 2 and n > 0
        ),
    )


def _triples(
    name: str, given: Any, count: int, kind: str, fits: Callable[[int], Any]
) -> tuple[Triple, ...]:
    try:
        found = tuple(tuple(index(n) for n in triple) for triple in given)
    except TypeError:  # a number in place of a triple, or one that is not whole
        found = ()
    if len(found) != count or any(
        len(triple) != 3 or not all(map(fits, triple)) for triple in found
    ):
        raise InputError(
            f"MedNeXt got {name} {given}, wanted {count} triples of {kind}"
        )
    return cast(tuple[Triple, ...], found)


def _floating(name: str, given: Any) -> Any:
    try:
        dtype = jnp.dtype(given)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"MedNeXt got {name}={given!r}, wanted a floating-point type such as float32"
        )
    return dtype
