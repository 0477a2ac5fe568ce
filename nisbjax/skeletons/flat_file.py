"""Our own file of skeletons: the flat arrays in an npz.

It is read some fifty times faster than the pickle of NISB that BANIS and PyTC walk, and is
what an evaluation keeps of any other format beside its scores.
"""

import os
import zipfile
from pathlib import Path

import numpy as np

from nisbjax.errors import InputError
from nisbjax.skeletons.arrays import FIELDS, Skeletons
from nisbjax.store import files, npy

_SHAPES = {"node_id": 1, "index_position": 2, "position_nm": 2, "edges": 2}
_TYPES = {"f": "floating point", "iu": "whole numbers that fit int64"}


def read(path: Path, max_nodes: int) -> Skeletons:
    """Checked arrays of an npz; what else it holds is passed over.

    Args:
      path: of the file.
      max_nodes: refuse more.

    Raises:
      InputError: another file, or arrays that are no skeletons.
    """
    found, names, claimed = {}, [], 0
    try:
        with open(path, "rb") as file, npy.Archive(file) as archive:
            claimed = sum(each.file_size for each in zipfile.ZipFile(file).infolist())
            names = archive.names
            if not set(FIELDS) - set(names) and claimed <= _most_bytes(max_nodes):
                found = {name: archive[name] for name in FIELDS}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path} is no whole npz ({reason}); copy it again") from None
    if claimed > _most_bytes(max_nodes):
        raise InputError(
            f"{path} goes beyond the limit of {max_nodes} nodes; divide it"
        )
    if not found:
        raise InputError(
            f"{path} has {', '.join(names[:8]) or 'nothing'}; wanted the arrays "
            f"{', '.join(FIELDS)}"
        )
    count = len(found["node_id"]) if found["node_id"].ndim else 0
    for name, array in found.items():
        columns = {"edges": 2}.get(name, 3)
        wanted = (array.shape[:1] if name == "edges" else (count,)) + (columns,)
        kind = "f" if name == "position_nm" else "iu"
        if array.ndim != _SHAPES[name] or array.shape != wanted[: array.ndim]:
            raise InputError(
                f"{path}: {name} has shape {array.shape}, with {count} nodes"
            )
        beyond = array.dtype == np.uint64 and array.max(initial=0) >= 1 << 63
        if array.dtype.kind not in kind or beyond:
            raise InputError(
                f"{path}: {name} is of type {array.dtype}; wanted {_TYPES[kind]}"
            )
    if count > max_nodes:
        raise InputError(f"{path} holds {count} nodes, over the limit {max_nodes}")
    if not count:
        raise InputError(f"{path} holds no node; wanted skeletons")
    if not np.isfinite(found["position_nm"]).all():
        raise InputError(f"{path}: position_nm of some nodes is not finite")
    edges = found["edges"]
    if edges.size and not 0 <= int(edges.min()) <= int(edges.max()) < count:
        raise InputError(f"{path} has edges to nodes that it does not hold")
    return Skeletons(
        found["node_id"].astype(np.int64),
        found["index_position"].astype(np.int64),
        found["position_nm"].astype(np.float64),
        edges.astype(np.int64),
        source=str(path),
    )


def write(skeletons: Skeletons, path: str | os.PathLike) -> None:
    """Replaces a file by the arrays."""
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{name: getattr(skeletons, name) for name in FIELDS})


def _most_bytes(nodes: int) -> int:
    """Of the arrays of so many nodes, 8 bytes each number, with an edge or two for each."""
    return 10_000 + 100 * nodes
