"""Label erosion (on device) and relabelling of components that a crop cut apart (host).

Erosion follows PyTC `segment.py` (after K. Lee's thesis, A.1.4): a voxel keeps its label
only if its window holds exactly one distinct positive id, so contact between two objects
erodes both, and contact with background erodes nothing. Unlabeled voxels (-1) survive, as
in PyTC since 2026-07. Relabelling follows BANIS `data.py`, which calls cc3d; we propagate
labels with numba inside the loader's threads. Unlike PyTC, whose scalar erosion t spares
array axis 0 while its documentation says z, the axes are always written out as a triple.
"""

from typing import no_type_check

import jax.numpy as jnp
import numba
import numpy as np
from jax import Array, lax
from jaxtyping import Int, Int32, Integer
from numpy import ndarray

from nisbjax.errors import InputError
from nisbjax.store.unlabeled import to_int32
from nisbjax.typing import Triple

EROSION_AXES = ("legacy", "xy", "xyz")


def erosion_triple(erosion: Triple, axes: str) -> Triple:
    """Radii per axis (x, y, z) for one of the three readings of "erosion t".

    Args:
      erosion: radii in array axes; (0, 2, 2) is PyTC's scalar 2.
      axes: `legacy` takes the triple as it stands (PyTC spares array axis 0, which is x
        in NISB's order); `xy` applies its largest radius to x and y, which is what PyTC's
        documentation describes; `xyz` to all three.

    Raises:
      InputError: a negative radius, or another word for `axes`.
    """
    if min(erosion) < 0:
        raise InputError(f"erosion is {erosion}; wanted three radii >= 0, in voxels")
    radius = max(erosion)
    triples = {
        "legacy": tuple(erosion),
        "xy": (radius, radius, 0),
        "xyz": (radius, radius, radius),
    }
    if axes not in triples:
        raise InputError(
            f"erosion_axes is {axes!r}; wanted one of {', '.join(EROSION_AXES)}"
        )
    return triples[axes]


def erode(labels: Int[Array, "b x y z"], erosion: Triple) -> Int[Array, "b x y z"]:
    """Sets to background every labeled voxel near which two different ids meet.

    Args:
      labels: 0 = background, > 0 = instance, negative = unlabeled.
      erosion: radii per axis in voxels; the window is 2 r + 1 wide and continues beyond
        the array by half-sample reflection (d c b a | a b c d). A radius must not exceed
        the axis.

    Returns:
      The labels, 0 where the window holds two or more positive ids. Two touching objects
      end 2 r voxels apart on each axis of the window.
    """
    if not any(erosion):
        return labels
    least = jnp.iinfo(labels.dtype).min
    no_id = jnp.iinfo(labels.dtype).max
    largest = labels
    smallest = jnp.where(labels > 0, labels, jnp.asarray(no_id, labels.dtype))
    for axis, radius in enumerate(erosion, start=1):
        if radius:
            largest = _extremum(largest, lax.max, least, radius, axis)
            smallest = _extremum(smallest, lax.min, no_id, radius, axis)
    keep = (labels < 0) | (largest == smallest)
    return jnp.where(keep, labels, jnp.zeros((), labels.dtype))


def _extremum(values: Array, choose, neutral: int, radius: int, axis: int) -> Array:
    """Box filter of 2 radius + 1 voxels along one axis, half-sample reflection."""
    pad = [(0, 0)] * values.ndim
    pad[axis] = (radius, radius)
    window = [1] * values.ndim
    window[axis] = 2 * radius + 1
    padded = jnp.pad(values, pad, mode="symmetric")
    return lax.reduce_window(
        padded,
        np.asarray(neutral, values.dtype),
        choose,
        tuple(window),
        (1,) * values.ndim,
        "valid",
    )


def relabel_components(
    labels: Integer[ndarray, "x y z"],
) -> Int32[ndarray, "x y z"]:
    """Gives every 6-connected piece of equal label its own id.

    Two branches of a neuron that meet outside the crop become two ids, so that a
    long-range edge between them is no longer a positive target.

    Args:
      labels: 0 = background, > 0 = instance; integers of any width. Unlabeled are negative
        ones and the largest of uint32 and uint64, see `unlabeled`.

    Returns:
      int32, 1, 2, ... in the order in which the pieces' first voxels stand in memory
      (C order); 0 as it was, -1 where unlabeled. The GIL is released meanwhile.
    """
    labels = np.ascontiguousarray(to_int32(labels))
    return _label_components(labels)


@no_type_check  # beartype cannot wrap what numba compiles
@numba.njit(nogil=True, cache=True)
def _root(parent, node):
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@no_type_check  # beartype cannot wrap what numba compiles
@numba.njit(nogil=True, cache=True)
def _join(parent, a, b):
    a, b = _root(parent, a), _root(parent, b)
    if a < b:
        parent[b] = a
        return a
    parent[a] = b
    return b


@no_type_check  # beartype cannot wrap what numba compiles
@numba.njit(nogil=True, cache=True)
def _label_components(labels):
    nx, ny, nz = labels.shape
    out = np.empty((nx, ny, nz), np.int32)
    # Every voxel may open an id in the worst case; pages never written cost nothing.
    parent = np.empty(nx * ny * nz + 1, np.int32)
    count = 0
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                label = labels[x, y, z]
                if label <= 0:
                    out[x, y, z] = label
                    continue
                found = 0
                if z > 0 and labels[x, y, z - 1] == label:
                    found = out[x, y, z - 1]
                if y > 0 and labels[x, y - 1, z] == label:
                    other = out[x, y - 1, z]
                    if found == 0:
                        found = other
                    elif found != other:
                        found = _join(parent, found, other)
                if x > 0 and labels[x - 1, y, z] == label:
                    other = out[x - 1, y, z]
                    if found == 0:
                        found = other
                    elif found != other:
                        found = _join(parent, found, other)
                if found == 0:
                    count += 1
                    parent[count] = count
                    found = count
                out[x, y, z] = found
    final = np.zeros(count + 1, np.int32)
    ids = 0
    for node in range(1, count + 1):
        root = _root(parent, node)
        if root == node:  # roots are the smallest of their set, so they come first
            ids += 1
            final[node] = ids
        else:
            final[node] = final[root]
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if out[x, y, z] > 0:
                    out[x, y, z] = final[out[x, y, z]]
    return out
