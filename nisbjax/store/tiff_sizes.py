"""Voxel sizes that TIFFs say: in ImageJ's words, in OME's XML, in our own description.

PyTC reads none.
"""

import json
from typing import Any
from xml.etree import ElementTree

import tifffile

from nisbjax.store import software, voxel_size

_MOST = 1 << 24  # letters of XML


def of_file(file: tifffile.TiffFile) -> list[float] | None:
    """Sizes x y z [nm] of the one stack in a file; None where it does not say all three."""
    try:
        if file.is_imagej:
            found = _imagej(file)
        elif file.is_ome:
            found = _ome(file.ome_metadata or "")
        else:
            found = _ours(file.pages.first.description)
    except (ValueError, TypeError, KeyError, ZeroDivisionError, ElementTree.ParseError):
        return None  # of another program, whatever it is
    good = found is not None and all(0 < size < 1e9 for size in found)
    return found if good else None


def _imagej(file: tifffile.TiffFile) -> list[float] | None:
    """Pixels in a unit along x and y; `spacing` of planes and `unit` in the description."""
    words = file.imagej_metadata or {}
    unit = str(words.get("unit", "")).replace("\\u00B5", "µ")
    tags = file.pages.first.tags
    across = [tags[name].value for name in ("XResolution", "YResolution")]
    sizes = [denominator / numerator for numerator, denominator in across]
    return voxel_size.from_axes("xyz", [*sizes, float(words["spacing"])], [unit] * 3)


def _ome(text: str) -> list[float] | None:
    if len(text) > _MOST or "<!" in text.replace("<!--", ""):  # no entities
        return None
    pixels = [
        e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("}Pixels")
    ]
    if len(pixels) != 1:
        return None
    sizes = [float(pixels[0].attrib[f"PhysicalSize{a}"]) for a in "XYZ"]
    units = [pixels[0].attrib.get(f"PhysicalSize{a}Unit", "µm") for a in "XYZ"]
    return voxel_size.from_axes("xyz", sizes, units)


def _ours(text: str) -> list[float] | None:
    words: Any = json.loads(text) if text.startswith("{") else {}
    if not software.is_ours(words.get("software")):
        return None
    return voxel_size.require_sizes("a TIFF", voxel_size.KEY, words[voxel_size.KEY], 3)
