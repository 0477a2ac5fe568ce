"""The operations of a block for which a GPU has a choice, and the candidates of each.

Source: the blocks of MedNeXt (arXiv:2303.09975), cut where a value has to leave the chip. We
differ from a library of kernels in that XLA's own form of each stands first in its list and
is what the others are compared with.

    convolve              depthwise, stride 1, with moments or a residual
    gather, scatter       depthwise, strided and transposed
    kernel_gradient       of all of them
    mix                   norm, expansion, GELU, compression, residual
    mix_input_gradient    and that of the moments
    mix_weight_gradients
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from nisbjax.models import blocks
from nisbjax.models import depthwise as plain
from nisbjax.models.kernels import depthwise, pointwise
from nisbjax.models.kernels.choice import Candidate, Use

XLA = Candidate("xla")
# Beyond it an index does not fit the 32 bits that the kernels count with.
LARGEST = 1 << 31
# Kernels that are tried for a use, and programs that occupy a GPU of a hundred processors.
TRIED = 3
PROGRAMS = 256
# Values of a tile of voxels, all channels; larger ones do not fit the registers.
LANES = 1 << 14
# Hidden values of a batch that a product may leave in memory.
MATERIALISED = 1 << 28


@dataclasses.dataclass(frozen=True, eq=False)
class BlockOperation:
    """An `Operation` by its functions.

    Attributes:
      name: of the operation.
      forms: candidates' names to functions of the arrays and static arguments; those whose
        names begin with "pallas" also take a `tile`.
      tiles: the tiles worth trying for a use.
      scales: what random input of each array is multiplied with.
    """

    name: str
    forms: dict[str, Callable[..., Any]]
    tiles: Callable[[Use], list[Any]]
    scales: Sequence[float]

    def candidates(self, use: Use) -> list[Candidate]:
        """XLA's forms, then each tile's; XLA's alone for arrays beyond 32-bit indices."""
        xla = [Candidate(name) for name in self.forms if not name.startswith("pallas")]
        if len(xla) > 1 and _hidden_values(use) > MATERIALISED:
            xla = xla[:1]
        fits = _largest(use) < LARGEST
        tiles = self.tiles(use) if fits and _whole(use) else []
        named = (tuple(sorted(tile._asdict().items())) for tile in tiles)
        return xla + [Candidate("pallas", tile) for tile in named]

    def run(self, candidate: Candidate, *arrays: Array, **static: Any) -> Any:
        """The operation's result by one of its candidates.

        A function of its own, so that a network of sixty blocks traces and lowers each
        kernel once.
        """
        return _function(self, candidate, tuple(sorted(static.items())))(*arrays)

    def example(self, use: Use, key: Array) -> tuple[Array, ...]:
        """Random arrays of a use, of the sizes that they have in a network."""
        keys = jax.random.split(key, len(use.shapes))
        kinds = zip(keys, use.shapes, use.dtypes, self.scales, strict=False)
        return tuple(
            scale * jax.random.normal(k, shape, jnp.dtype(dtype))
            for k, shape, dtype, scale in kinds
        )


@functools.lru_cache(maxsize=1024)
def _function(
    operation: BlockOperation, candidate: Candidate, static: tuple[tuple[str, Any], ...]
) -> Callable[..., Any]:
    form, given = operation.forms[candidate.name], dict(static)
    if candidate.name.startswith("pallas"):
        values = dict(candidate.parameters)
        kinds = (depthwise.Tile, pointwise.Tile)
        kind = next(kind for kind in kinds if set(values) == set(kind._fields))
        given["tile"] = kind(**values)

    def run(*arrays):
        return form(*arrays, **given)

    run.__name__ = f"{operation.name}_{candidate.name}"  # in a profile
    return jax.jit(run)


def _largest(use: Use) -> int:
    """Values of the largest array, of the result of `scatter` too."""
    coarse = math.prod(use.shapes[0])
    strides = dict(use.static)["strides"] if use.operation == "scatter" else ()
    return max(coarse * math.prod(strides), *map(math.prod, use.shapes))


def _whole(use: Use) -> bool:
    """Whether the kernels take such arrays: channels in blocks of 16."""
    return all(n % 16 == 0 for shape in use.shapes[:2] for n in shape[-1:])


# ---- depthwise


def _convolve(x, weight, residual=None, *, moments):
    half = tuple(k // 2 for k in weight.shape[:3])
    y = plain.gather(x, weight, (1, 1, 1), half)
    y = y if residual is None else y + residual
    return (y, *blocks.moments(y)) if moments else y


def _convolve_pallas(x, weight, residual=None, *, moments, tile):
    y, parts = depthwise.convolve(x, weight, residual, moments=moments, tile=tile)
    if parts is None:
        return y
    return y, *depthwise.combined(parts, x.shape, tile)


def _kernel_gradient_pallas(fine, coarse, *, kernel, strides, low, tile):
    centred = low == tuple(k // 2 for k in kernel)
    if math.prod(kernel) <= plain.UNROLLED and strides == (1, 1, 1) and centred:
        return depthwise.rolling_kernel_gradient(fine, coarse, kernel, tile=tile)
    return depthwise.kernel_gradient(fine, coarse, kernel, strides, low, tile=tile)


def _depthwise_tiles(
    known: Mapping[int, tuple[int, ...]],
    others: Sequence[tuple[int, ...]],
    grid: int = 1,
) -> Callable[[Use], list[depthwise.Tile]]:
    """Tiles of (rows, columns, vector, planes, warps), for the channels of a use.

    Args:
      known: by channels, those that were the fastest of a sketch on an H100; tried first.
      others: from large to small.
      grid: arrays, of which the programs share the smallest.
    """

    def tiles(use: Use) -> list[depthwise.Tile]:
        channels = use.shapes[0][-1]
        block = min(32, channels & -channels)
        array = min(use.shapes[:grid], key=math.prod)
        if use.operation == "gather":  # programs share what it makes
            b, *sizes, c = array
            strides = dict(use.static)["strides"]
            array = (b, *(n // s for n, s in zip(sizes, strides)), c)

        def tile(rows, columns, vector, planes, warps):
            return depthwise.Tile(rows, columns, block, vector, planes, warps)

        found = [tile(*shape) for shape in others]
        found = _near(found, [depthwise.programs(array, t) for t in found])
        first = [tile(*known[channels])] if channels in known else []
        return first + [t for t in found if t not in first]

    return tiles


def _near(tiles: list[Any], programs: list[int]) -> list[Any]:
    """The largest tiles that occupy a GPU, and one larger; the smallest where none does."""
    first = next((i for i, n in enumerate(programs) if n >= PROGRAMS), len(tiles))
    first = max(0, min(first - 1, len(tiles) - TRIED))
    return tiles[first : first + TRIED]


CONVOLVE = BlockOperation(
    "convolve",
    {"xla": _convolve, "pallas": _convolve_pallas},
    _depthwise_tiles(
        {32: (4, 16, 8, 32, 4), 64: (4, 16, 8, 32, 4), 128: (2, 8, 8, 16, 4)},
        (
            (4, 16, 8, 16, 4),
            (2, 16, 8, 16, 4),
            (4, 16, 2, 16, 4),
            (2, 8, 8, 16, 4),
            (2, 16, 2, 16, 4),
            (2, 8, 8, 8, 4),
            (2, 8, 4, 8, 2),
            (2, 8, 2, 8, 2),
            (2, 8, 2, 4, 2),
        ),
    ),
    (1.0, 0.2, 1.0),
)
STRIDED = (
    (2, 8, 8, 8, 4),
    (2, 8, 4, 4, 4),
    (2, 4, 8, 4, 4),
    (2, 8, 2, 4, 2),
    (2, 4, 2, 2, 2),
)
GATHER = BlockOperation(
    "gather",
    {
        "xla": lambda x, weight, *, strides, low: plain.gather(x, weight, strides, low),
        "pallas": depthwise.gather,
    },
    _depthwise_tiles({}, STRIDED),
    (1.0, 0.2),
)
SCATTER = BlockOperation(
    "scatter",
    {
        "xla": lambda x, weight, *, strides, low: plain.scatter(
            x, weight, strides, low
        ),
        "pallas": depthwise.scatter,
    },
    _depthwise_tiles({}, STRIDED),
    (1.0, 0.2),
)
KERNEL_GRADIENT = BlockOperation(
    "kernel_gradient",
    {"xla": plain.weight_gradient, "pallas": _kernel_gradient_pallas},
    _depthwise_tiles(
        {32: (4, 4, 4, 32, 4), 64: (2, 8, 4, 32, 4), 128: (1, 16, 4, 16, 4)},
        (
            (4, 4, 2, 32, 4),
            (4, 4, 4, 16, 4),
            (2, 4, 2, 32, 4),
            (2, 8, 2, 16, 4),
            (2, 4, 2, 16, 2),
            (2, 4, 2, 8, 2),
            (2, 4, 2, 4, 2),
        ),
        2,
    ),
    (1.0, 1.0),
)


# ---- pointwise


def _mix(y, mean, weight2, bias2, weight3, bias3, residual=None):
    centred = y - mean[:, None]
    biases = (bias.astype(y.dtype) for bias in (bias2, bias3))
    z = blocks.mlp(centred, weight2, next(biases), weight3, next(biases))
    return z if residual is None else z + residual


def _mix_batched(y, mean, weight2, bias2, weight3, bias3, residual=None):
    """All samples in one product; the hidden values are there as a whole."""
    hidden = jnp.matmul(y - mean[:, None], weight2) + bias2[:, None].astype(y.dtype)
    z = jnp.matmul(blocks.gelu(hidden), weight3) + bias3[None, None].astype(y.dtype)
    return z if residual is None else z + residual


def _mix_pallas(y, mean, weight2, bias2, weight3, bias3, residual=None, *, tile):
    weights = pointwise.Weights(mean, weight2, bias2, weight3, bias3)
    return pointwise.mix(y, weights, residual, tile=tile)


def _input_gradient(y, g, mean, weight2, bias2, weight3, u, v):
    centred = y - mean[:, None]
    by_y, _ = blocks.mlp_gradients(centred, weight2, bias2.astype(y.dtype), weight3, g)
    moments = u[:, None] + v[:, None] * centred.astype(jnp.float32)
    return (by_y.astype(jnp.float32) + moments).astype(y.dtype)


def _input_gradient_batched(y, g, mean, weight2, bias2, weight3, u, v):
    centred = y - mean[:, None]
    hidden = jnp.matmul(centred, weight2) + bias2[:, None].astype(y.dtype)
    by_hidden = jnp.matmul(g, weight3.T) * blocks.gelu_slope(hidden)
    by_y = jnp.matmul(by_hidden, weight2.swapaxes(1, 2))
    moments = u[:, None] + v[:, None] * centred.astype(jnp.float32)
    return (by_y.astype(jnp.float32) + moments).astype(y.dtype)


def _input_gradient_pallas(y, g, mean, weight2, bias2, weight3, u, v, *, tile):
    weights = pointwise.Weights(mean, weight2, bias2, weight3, bias2)
    return pointwise.input_gradient(y, g, weights, (u, v), tile=tile)


def _weight_gradients(y, g, mean, weight2, bias2, weight3):
    centred = y - mean[:, None]
    return blocks.mlp_gradients(centred, weight2, bias2.astype(y.dtype), weight3, g)[1]


def _weight_gradients_batched(y, g, mean, weight2, bias2, weight3):
    centred = y - mean[:, None]
    hidden = jnp.matmul(centred, weight2) + bias2[:, None].astype(y.dtype)
    by_hidden = jnp.matmul(g, weight3.T) * blocks.gelu_slope(hidden)
    add = {"preferred_element_type": jnp.float32}
    return (
        jnp.einsum("bnc,bnr->bcr", centred, by_hidden, **add),
        by_hidden.astype(jnp.float32).sum(1),
        jnp.einsum("bnr,bno->ro", blocks.gelu(hidden), g, **add),
        g.astype(jnp.float32).sum((0, 1)),
    )


def _weight_gradients_pallas(y, g, mean, weight2, bias2, weight3, *, tile):
    weights = pointwise.Weights(mean, weight2, bias2, weight3, bias2)
    return pointwise.weight_gradients(y, g, weights, tile=tile)


def _pointwise_tiles(
    shapes: Sequence[tuple[int, ...]], widest: int
) -> Callable[[Use], list[pointwise.Tile]]:
    """Tiles of (voxels, hidden, warps, stages, groups, parts), those known to be fast first.

    Args:
      shapes: all of them.
      widest: channels beyond which the library's products are left alone.
    """

    def tiles(use: Use) -> list[pointwise.Tile]:
        at = _weight2(use)
        channels, hidden = use.shapes[at][-2:]
        outputs = use.shapes[at + 2][-1]
        width = max(channels, outputs)
        found = [pointwise.Tile(*shape) for shape in shapes]
        found = [
            t
            for t in found
            if hidden % (t.hidden * t.parts) == 0 and width * t.voxels <= LANES
        ]
        return found[:TRIED] if width <= widest and outputs % 16 == 0 else []

    return tiles


def _weight2(use: Use) -> int:
    """Where the first weights are among the arrays of a use."""
    return 2 if use.operation == "mix" else 3


def _hidden_values(use: Use) -> int:
    return math.prod(use.shapes[0][:2]) * use.shapes[_weight2(use)][-1]


MIX = BlockOperation(
    "mix",
    {"xla": _mix, "xla_batched": _mix_batched, "pallas": _mix_pallas},
    _pointwise_tiles(
        (
            (64, 32, 4, 2),
            (128, 32, 4, 2),
            (128, 64, 8, 2),
            (64, 64, 4, 2),
            (64, 16, 4, 2),
        ),
        512,
    ),
    (1.0, 0.5, 0.1, 1.0, 0.1, 1.0, 1.0),
)
MIX_INPUT_GRADIENT = BlockOperation(
    "mix_input_gradient",
    {
        "xla": _input_gradient,
        "xla_batched": _input_gradient_batched,
        "pallas": _input_gradient_pallas,
    },
    _pointwise_tiles(
        (
            (64, 32, 4, 1),
            (64, 32, 4, 2),
            (128, 32, 8, 2),
            (64, 64, 8, 2),
            (64, 16, 4, 2),
        ),
        256,
    ),
    (1.0, 1.0, 0.5, 0.1, 1.0, 0.1, 1.0, 1.0),
)
MIX_WEIGHT_GRADIENTS = BlockOperation(
    "mix_weight_gradients",
    {
        "xla": _weight_gradients,
        "xla_batched": _weight_gradients_batched,
        "pallas": _weight_gradients_pallas,
    },
    _pointwise_tiles(
        (
            (64, 32, 4, 1, 32, 1),
            (64, 32, 4, 1, 32, 3),
            (128, 32, 8, 1, 32, 1),
            (64, 64, 8, 1, 32, 1),
            (64, 16, 4, 1, 32, 1),
        ),
        256,
    ),
    (1.0, 1.0, 0.5, 0.1, 1.0, 0.1),
)
ALL = {
    operation.name: operation
    for operation in (
        CONVOLVE,
        GATHER,
        SCATTER,
        KERNEL_GRADIENT,
        MIX,
        MIX_INPUT_GRADIENT,
        MIX_WEIGHT_GRADIENTS,
    )
}
