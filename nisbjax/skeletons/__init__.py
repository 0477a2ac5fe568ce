"""Skeletons of a volume: the flat arrays, and how NISB's file is read."""

from nisbjax.skeletons.arrays import Skeletons, content_hash, load

__all__ = ["Skeletons", "content_hash", "load"]
