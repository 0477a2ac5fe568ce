"""Import and export of weights, under the path by which other programs know them."""

from nisbjax.modes.weights import export, run

__all__ = ["export", "run"]
