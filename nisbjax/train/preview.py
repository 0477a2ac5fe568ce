"""What the network sees, should say and says, as one picture of a validation crop.

Mid-slices in all three planes; three affinity channels at a time are red, green and blue.
BANIS logs single planes of x, PyTC up to eight images of all channels side by side; here
one crop, always the same, shows how its membranes come out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32, Shaped, UInt8

from nisbjax.data.targets import Examples
from nisbjax.store import figures
from nisbjax.typing import Triple

PLANES = ((2, "z", "x", "y"), (1, "y", "x", "z"), (0, "x", "y", "z"))
_AT_ONCE = 3  # channels in one panel
_UNKNOWN = 0.5
_EXACT = {"interpolation": "nearest"}


class Planes(NamedTuple):
    """Mid-slices of one crop, perpendicular to z, y and x."""

    images: tuple[Float32[Array, "_ _ c"], ...]
    targets: tuple[Bool[Array, "_ _ o"], ...]
    valid: tuple[Bool[Array, "_ _ o"], ...]
    predictions: tuple[Float32[Array, "_ _ o"], ...]  # sigmoid of the logits


def mid_planes(made: Examples, logits: Float[Array, "b x y z o"]) -> Planes:
    """Slices of the first crop of a batch; to be called inside a jitted function."""

    def planes(values: Shaped[Array, "b x y z n"]) -> tuple[Array, ...]:
        first = values[0]
        return tuple(
            jax.lax.index_in_dim(first, first.shape[axis] // 2, axis, keepdims=False)
            for axis, *_ in PLANES
        )

    likely = tuple(jax.nn.sigmoid(plane) for plane in planes(logits))
    return Planes(planes(made.images), planes(made.targets), planes(made.valid), likely)


def picture(planes: Planes, offsets: Sequence[Triple]) -> UInt8[np.ndarray, "h w 3"]:
    """The grid of one crop: rows are planes; input, then target beside prediction.

    Args:
      planes: on the host.
      offsets: of the affinity channels, for the titles.

    Returns:
      Pixels. Edges that are not known are grey among the targets.
    """
    groups = [range(i, len(offsets))[:_AT_ONCE] for i in range(0, len(offsets), 3)]
    columns = 1 + 2 * len(groups)
    size = (2.4 * columns, 7.6)
    figure = figures.figure(figsize=size, dpi=80, layout="constrained")
    panels = figure.subplots(len(PLANES), columns, squeeze=False)
    for row, (_, name, across, down) in enumerate(PLANES):
        grey = np.asarray(planes.images[row]).mean(axis=-1)
        shown = panels[row, 0]
        shown.imshow(_turned(grey), cmap="gray", vmin=0, vmax=1, **_EXACT)
        shown.set_ylabel(f"{name} mid-slice\n{across} right, {down} down", fontsize=8)
        wanted = np.where(planes.valid[row], planes.targets[row], _UNKNOWN)
        for number, group in enumerate(groups):
            for side, values in enumerate((wanted, planes.predictions[row])):
                panel = panels[row, 1 + 2 * number + side]
                panel.imshow(_turned(_colours(np.asarray(values), group)), **_EXACT)
    panels[0, 0].set_title("input", fontsize=9)
    for number, group in enumerate(groups):
        named = zip("RGB", group, strict=False)
        edges = "  ".join(
            f"{name} {','.join(map(str, offsets[c]))}" for name, c in named
        )
        for side, word in enumerate(("target", "prediction")):
            title = f"{word}\n{edges}"
            panels[0, 1 + 2 * number + side].set_title(title, fontsize=8)
    for panel in panels.ravel():
        panel.set_xticks([])
        panel.set_yticks([])
    return figures.pixels(figure)


def _turned(plane: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """The first axis to the right, the second downwards."""
    return plane.swapaxes(0, 1)


def _colours(
    plane: Shaped[np.ndarray, "a b o"], group: Sequence[int]
) -> Float32[np.ndarray, "a b 3"]:
    colours = np.zeros((*plane.shape[:2], 3), np.float32)
    colours[..., : len(group)] = plane[..., list(group)]
    return colours
