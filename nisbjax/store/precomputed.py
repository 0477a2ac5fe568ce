"""neuroglancer's precomputed volumes, read through TensorStore: x y z and channels.

A folder whose `info` lists scales; a path of the folder means the finest, `em/8_8_40` the
one of that key. Arrays count from their first voxel: `voxel_offset` is an attribute, and a
box of 0:64 is the first 64 voxels wherever the volume lies in its dataset. PyTC and BANIS
read none.
"""

import contextlib
import math
import os
import pathlib
import posixpath
from typing import Any, NamedTuple

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import claims, inflated_chunks, places, scales, voxel_size
from nisbjax.store.attributes import read_json_object
from nisbjax.store.places import Place
from nisbjax.store.schema import (
    Kind,
    either,
    list_of,
    nothing,
    number,
    optional,
    record,
    text,
    whole,
)
from nisbjax.store.views import words

_LEVELS_ABOVE = 4  # of a scale's folder, whose key may hold slashes
_ENCODINGS = ("raw", "compressed_segmentation", "jpeg", "png")
_MOST_BITS = 24  # of the shards' and minishards' numbers: an index of 256 MB
_OFFSET = -(1 << 62)
_SCALE = record(
    {
        "key": text(),
        "size": list_of(whole(), 3),
        "resolution": list_of(number(0, above=True), 3),
        "chunk_sizes": list_of(list_of(whole(1), 3)),
        "encoding": text(),
        "voxel_offset": optional(list_of(whole(_OFFSET), 3)),
        "sharding": optional(
            either(
                record({"shard_bits": whole(), "minishard_bits": whole(0, _MOST_BITS)}),
                nothing(),
            )
        ),
    }
)
_INFO: Kind = record(
    {"data_type": text(), "num_channels": whole(1), "scales": list_of(_SCALE)}
)


class Located(NamedTuple):
    """A scale of a precomputed volume.

    Attributes:
      root: the folder of its `info`.
      key: of the scale.
    """

    root: Place
    key: str


def locate(path: Place) -> Located | None:
    """The scale that a path names, or the finest of a folder; None where neither is.

    Raises:
      InputError: an `info` that says it is precomputed and is not.
    """
    info = _info(path)
    if info is not None:
        listed = _listed(info)
        finest = scales.finest_of(listed)
        scales.say_finest(str(path), tuple(map(str, listed)), finest.name)
        return Located(path, finest.name)
    for root in list(path.parents)[:_LEVELS_ABOVE]:
        inner = path.relative_to(root).as_posix()
        for scale in (_info(root) or {}).get("scales", ()):
            if scales.same(scale["key"], inner):
                return Located(root, scale["key"])
    return None


def missing(path: Place) -> str:
    """What to say of a path below a precomputed volume; "" elsewhere."""
    for root in list(path.parents)[:_LEVELS_ABOVE]:
        info = _info(root)
        if info is not None:
            keys = ", ".join(scale["key"] for scale in info["scales"])
            inner = path.relative_to(root).as_posix()
            return f"{root} has no scale {inner}; it has {keys}"
    return ""


def open_precomputed(
    root: Place, key: str
) -> tuple[ts.TensorStore, dict[str, Any], dict[str, Any]]:
    """One scale, its attributes, and the word for its axes.

    Raises:
      InputError: metadata that cannot be, an encoding that is not known here, or chunks
        compressed in a way that is none of ours.
    """
    info = _info(root) or {}
    scale = _scale(root, info, key)
    source = f"{root}/{key}"
    dtype = claims.require_numbers(source, info["data_type"])
    channels = info["num_channels"]
    shape = [*scale["size"], channels]
    chunk = scale["chunk_sizes"][0]
    claims.require_possible(source, shape, [*chunk, channels], dtype.itemsize)
    if scale["encoding"] not in _ENCODINGS:
        raise InputError(
            f"{source} has the encoding {scale['encoding']!a}; wanted "
            f"{', '.join(_ENCODINGS[:-1])} or {_ENCODINGS[-1]}"
        )
    offset = scale.get("voxel_offset", [0, 0, 0])
    attributes: dict[str, Any] = {
        voxel_size.KEY: [float(r) for r in scale["resolution"]],
    }
    if any(offset):
        attributes["voxel_offset"] = offset
    own = info.get("attributes")
    if isinstance(own, dict):  # ours; others know none
        held = {k: v for k, v in own.items() if k not in _left_out(info, key)}
        attributes = {**held, **attributes}
    store = _opened(root, key, source)
    if isinstance(root, pathlib.Path) and not scale.get("sharding"):
        folder = folder_of(root, key)
        if inflated_chunks.are_there(folder):
            store = inflated_chunks.view_of(root, folder, info, scale)
            return store, attributes, {"info": "xyzc"}
    store = store[ts.d[:].translate_to[0]]
    return store, attributes, {"info": "xyzc"}


def folder_of(root: pathlib.Path, key: str) -> pathlib.Path:
    """Where the chunks of a scale lie."""
    return pathlib.Path(posixpath.normpath((root / key).as_posix()))


def is_exact(root: Place, key: str) -> bool:
    """Whether the numbers of a scale are those that were written: not of JPEG."""
    return _scale(root, _info(root) or {}, key)["encoding"] != "jpeg"


def spec_of(root: Place, key: str) -> dict[str, Any]:
    """TensorStore's specification of a scale."""
    return {
        **places.spec_of("neuroglancer_precomputed", root),
        "scale_metadata": {"key": key},
    }


def _listed(info: dict[str, Any]) -> list[scales.Scale]:
    return [
        scales.Scale(s["key"], list(map(float, s["resolution"])))
        for s in info["scales"]
    ]


def _left_out(info: dict[str, Any], key: str) -> tuple[str, ...]:
    """Attributes that are not of this scale: they were written for the finest."""
    is_finest = key == scales.finest_of(_listed(info)).name
    return ("voxel_offset", *(() if is_finest else scales.OF_ONE))


def _opened(root: Place, key: str, source: str) -> ts.TensorStore:
    try:
        return ts.open(
            spec_of(root, key), read=True, context=places.context_of(root)
        ).result()
    except Exception as error:  # noqa: BLE001 (TensorStore has a few types for all)
        raise InputError(
            f"{source} cannot be read as a precomputed volume: {words(error)}"
        ) from None


def _scale(root: Place, info: dict[str, Any], key: str) -> dict[str, Any]:
    for scale in info.get("scales", ()):
        if scale["key"] == key:
            return scale
    raise InputError(f"{root} has no scale {key}; its info has changed")


def _info(root: Place) -> dict[str, Any] | None:
    """The metadata of a precomputed volume; None where a folder is none.

    Raises:
      InputError: they are not what they should be.
    """
    path = root / "info"
    found = None
    there = path.exists() if isinstance(path, places.Address) else os.path.lexists(path)
    with contextlib.suppress(InputError):  # of other programs, whatever it is
        found = read_json_object(path) if there else None
    if found is None or not isinstance(found.get("scales"), list):
        return None
    problem = _INFO.problem(found)
    if problem is not None:
        raise InputError(
            f"{path}: {problem.at} {problem.came}; wanted {problem.wanted}; copy or write "
            "it again"
        )
    for scale in found["scales"]:
        if not scale["chunk_sizes"] or math.prod(scale["chunk_sizes"][0]) == 0:
            raise InputError(f"{path}: a scale has no chunk_sizes; wanted one or more")
    if not found["scales"]:
        raise InputError(f"{path} lists no scale; wanted one or more")
    return found
