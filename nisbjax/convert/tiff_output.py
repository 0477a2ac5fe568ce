"""TIFF stacks: BigTIFF of planes, whose description says what they were made from."""

import json
import pathlib
from typing import Any

import tifffile

from nisbjax.convert.plan import Plan
from nisbjax.convert.planes import planes
from nisbjax.store import files
from nisbjax.store.volume import Volume

_COMPRESSIONS = {"zlib": "zlib", "none": None}


def words(path: pathlib.Path) -> dict[str, Any]:
    """The JSON of a TIFF's description; nothing of another program's."""
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            found = json.loads(file.pages.first.description)
    except Exception:  # noqa: BLE001 (tifffile has many for what is no TIFF)
        return {}
    return found if isinstance(found, dict) else {}


def write(plan: Plan, source: Volume, said: dict[str, Any], path: pathlib.Path) -> None:
    """Writes (c) z y x to a file, in place.

    Args:
      plan: of the conversion.
      source: in the order of the output.
      said: what the file says of itself.
      path: of the file.
    """
    described = {
        "axes": plan.order.upper(),
        **{k: v for k, v in said.items() if k != "axes"},
    }
    size = plan.voxel_size_nm
    # Pixels along x and y in a centimetre, of 1e7 nm.
    density = (1e7 / size[0], 1e7 / size[1]) if size else None
    tifffile.imwrite(
        path,
        planes(plan, source),
        shape=source.shape,
        dtype=plan.dtype,
        bigtiff=True,
        photometric="minisblack",
        compression=_COMPRESSIONS[plan.compression],
        metadata=files.plain(described),
        resolution=density,
        resolutionunit="CENTIMETER" if density else None,
    )
