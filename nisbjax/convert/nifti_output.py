"""NIfTI files: a header of nibabel's, our words as its comment, then voxels, x the fastest.

NIfTI-2 where an axis is too long for the first version's 16 bits. Channels are its fifth axis.
"""

import gzip
import json
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from nisbjax.convert.plan import Plan, in_order
from nisbjax.convert.planes import planes
from nisbjax.store import extras, files, nifti
from nisbjax.store.volume import Volume

_MOST = 32767  # voxels along an axis of NIfTI-1
_LEVEL = 1  # of gzip; it is the slow part


def words(path: pathlib.Path) -> dict[str, Any]:
    """What a file says of itself in our words; nothing of another program's."""
    nibabel = extras.imported("nibabel", nifti.EXTRA, path)
    try:
        return nifti.words(nibabel.load(path))
    except Exception:  # noqa: BLE001 (nibabel has many for what is no NIfTI)
        return {}


def write(plan: Plan, source: Volume, said: dict[str, Any], path: pathlib.Path) -> None:
    """Writes x y z (c) to a file, in place.

    Args:
      plan: of the conversion.
      source: in the order of the output.
      said: what the file says of itself.
      path: of the file.
    """
    nibabel = extras.imported("nibabel", nifti.EXTRA, path)
    spatial = plan.levels[0].shape
    is_long = max((*spatial, plan.channels)) > _MOST
    header = nibabel.Nifti2Header() if is_long else nibabel.Nifti1Header()
    header.set_data_dtype(plan.dtype)
    shape = spatial if plan.order == "xyz" else (*spatial, 1, plan.channels)
    header.set_data_shape(shape)
    if plan.voxel_size_nm:
        microns = [size / 1000 for size in plan.voxel_size_nm]
        header.set_zooms((*microns, *(1,) * (len(shape) - 3)))
        header.set_xyzt_units("micron")
    text = json.dumps(files.plain(said)).encode()
    header.extensions.append(nibabel.nifti1.Nifti1Extension(nifti.COMMENT, text))
    start = header.single_vox_offset + header.extensions.get_sizeondisk()
    header.set_data_offset(start)
    backwards = plan.order[::-1]
    turned = source.view(in_order(source.store, source.axes, backwards), backwards)
    with _opened(path, plan) as file:
        header.write_to(file)
        file.write(bytes(start - file.tell()))
        for plane in planes(plan, turned):  # y x, x the fastest
            file.write(np.ascontiguousarray(plane).data)


@contextmanager
def _opened(path: pathlib.Path, plan: Plan) -> Iterator[IO[bytes]]:
    with open(path, "wb") as file:
        if plan.compression == "none":
            yield file
            return
        # Without the time and the name, so that the same makes the same bytes.
        packed: Any = gzip.GzipFile("", "wb", _LEVEL, file, mtime=0)
        with packed:
            yield packed
