"""UpKern: start a network of large kernels from one of small kernels.

Source: MedNeXt (arXiv:2303.09975), section 2.3. Depthwise kernels are interpolated
linearly, as `torch.nn.functional.interpolate(mode="trilinear", align_corners=False)`;
everything else is copied. We differ in being strict: a leaf that is neither is an error.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nisbjax.errors import InputError


def upkern(params: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    """`params` with the depthwise kernels resized to those of `target`.

    Both are nested dicts of one network's parameters; of `target` only shapes matter.

    Raises:
      InputError: the two differ in more than the size of depthwise kernels.
    """
    return dict(_resized(params, target, ()))


def _resized(params, target, path):
    if isinstance(target, Mapping):
        if set(params) != set(target):
            differing = ", ".join(sorted(set(params) ^ set(target)))
            raise InputError(
                f"UpKern got networks that differ in {'.'.join((*path, differing))}; "
                "they may differ in kernel size alone"
            )
        return {k: _resized(params[k], target[k], (*path, k)) for k in target}
    shape, wanted = tuple(params.shape), tuple(target.shape)
    if shape == wanted:
        return np.asarray(params)
    if path[-2:] != ("conv1", "weight") or (*shape[:-4], shape[-1]) != (
        *wanted[:-4],
        wanted[-1],
    ):
        raise InputError(
            f"UpKern got {'.'.join(path)} of shape {shape}, wanted {wanted}; the "
            "networks may differ in kernel size alone"
        )
    values = np.asarray(params)
    for axis in (-4, -3, -2):
        matrix = _interpolation(values.shape[axis], wanted[axis])
        values = np.moveaxis(np.moveaxis(values, axis, -1) @ matrix.T, -1, axis)
    return values.astype(params.dtype)


def _interpolation(size: int, wanted: int) -> np.ndarray:
    """Matrix [wanted size] of linear interpolation between pixel centres."""
    at = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size)))
