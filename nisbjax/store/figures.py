"""Figures as PNG files, drawn without any display.

matplotlib's object interface needs no backend, but matplotlib refuses to be imported where
MPLBACKEND names one that is not installed, as a Jupyter kernel's does for the commands that
a cell starts. It is imported here alone, with the variable out of its way; what the
variable says holds again for whoever draws in a notebook. BANIS and PyTC go through pyplot.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from nisbjax.store import files


@contextlib.contextmanager
def _without_backend() -> Iterator[None]:
    name = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if name is not None:
            os.environ["MPLBACKEND"] = name


with _without_backend():
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

if "MPLBACKEND" in os.environ:
    with contextlib.suppress(ValueError):  # it is not installed
        matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"]


def figure(**arguments: Any) -> Figure:
    """An empty figure with a canvas of pixels; see `matplotlib.figure.Figure`."""
    made = Figure(**arguments)
    FigureCanvasAgg(made)
    return made


def save(drawn: Figure, path: str | os.PathLike, dpi: int) -> None:
    """Replaces a PNG file by a figure."""
    with files.replacing(path) as temporary:
        drawn.savefig(temporary, dpi=dpi, format="png")


def pixels(drawn: Figure) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a figure, red, green and blue."""
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
