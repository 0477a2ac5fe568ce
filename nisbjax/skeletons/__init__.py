"""Skeletons of a volume: the flat arrays, and the files that hold them."""

from nisbjax.skeletons.arrays import Skeletons
from nisbjax.skeletons.formats import content_hash, is_there, load

__all__ = ["Skeletons", "content_hash", "is_there", "load"]
