"""Which reader opens skeletons, by what the path is, and how they are known again.

NISB's pickle, our flat npz, SWC (one file, or a folder of them) and neuroglancer's
precomputed skeletons; PyTC and BANIS read the pickle alone.
"""

import dataclasses
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from absl import logging

from nisbjax.errors import InputError
from nisbjax.skeletons import flat_file, nisb_file, precomputed, swc
from nisbjax.skeletons.arrays import Skeletons
from nisbjax.store import numeric_order
from nisbjax.store.address import is_address
from nisbjax.store.places import local_copy
from nisbjax.typing import FloatTriple

MAX_BYTES = 1 << 30  # NISB's cubes have some 60 MB
MAX_NODES = 200_000_000
WANTED = (
    "NISB's skeleton.pkl, .npz, .swc, a folder of .swc or neuroglancer's precomputed"
)
_ELSE = "; where they are not, say #um or #voxels behind the path"
_NUMBER = re.compile(r"\d+")


def load(
    path: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    voxel_size_nm: FloatTriple | None = None,
    max_bytes: int = MAX_BYTES,
    max_nodes: int = MAX_NODES,
) -> Skeletons:
    """Reads skeletons: nodes in the file's order, none dropped.

    Args:
      path: `skeleton.pkl` (a pickled `networkx.Graph` of any version from 1.11, whose nodes
        carry `id`, `index_position` [voxel] and `nm_position` [nm]); our `.npz`; an `.swc`
        or a folder of them, maybe with `#nm`, `#um` or `#voxels` behind; a folder of
        neuroglancer's precomputed skeletons.
      cache: a folder for the flat arrays, named by the sha256 of the content, so that
        the next call on the same content is some fifty times faster.
      voxel_size_nm: where a file has positions in nm alone, or in voxels alone.
      max_bytes: refuse larger files.
      max_nodes: refuse more nodes.

    Raises:
      InputError: no such file, too large, damaged, or no skeletons; a pickle that names
        anything but a graph.
    """
    place, unit = split_unit(path)
    kind = _kind(place)
    if kind == "":
        raise InputError(f"no skeleton file at {path}; wanted {WANTED}")
    if kind == "folder":
        raise InputError(f"{place} is a folder without skeletons; wanted {WANTED}")
    if unit and kind != "swc":
        raise InputError(f"{path} is no SWC, which alone has #{unit} behind its path")
    if kind not in ("pickle", "flat") and voxel_size_nm is None:
        raise InputError(f"{path} has no voxels of its own; give its voxel_size_nm")
    size = sum(file.stat().st_size for file in _files(place, kind))
    if size > max_bytes:
        raise InputError(
            f"{path} has {size} bytes, more than the limit of {max_bytes}; "
            "it is hardly a skeleton file"
        )
    if kind == "swc":
        logging.info(
            "%s: positions in %s%s", place, unit or "nm", "" if unit else _ELSE
        )
    cached = None
    if cache is not None and kind != "flat":
        cached = Path(cache) / f"skeletons_{content_hash(path, voxel_size_nm)[:16]}.npz"
    found = _kept(cached, path, max_nodes) if cached is not None else None
    if found is None:
        found = _read(place, kind, unit, voxel_size_nm, max_bytes, max_nodes)
        if cached is not None:
            flat_file.write(found, cached)
    placed = kind not in ("pickle", "flat")
    return dataclasses.replace(found, source=str(path), placed=placed)


def content_hash(
    path: str | os.PathLike[str], voxel_size_nm: FloatTriple | None = None
) -> str:
    """sha256 of the file or of a folder's files of skeletons with their names.

    SWC counts with its name as a file too, since that says the id. A unit behind the path counts, and so does a voxel size that stands in for what the file
    does not say.
    """
    place, unit = split_unit(path)
    kind = _kind(place)
    if place.is_dir() or kind == "swc":
        digest = hashlib.sha256()
        for file in _files(place, kind):
            digest.update(f"{file.name} {_sha256(file).hexdigest()}\n".encode())
    else:
        digest = _sha256(place)
    if unit:
        digest.update(unit.encode())
    if voxel_size_nm is not None:
        digest.update(repr(tuple(map(float, voxel_size_nm))).encode())
    return digest.hexdigest()


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether a file or folder lies where skeletons are named; "" is nowhere."""
    return bool(str(path)) and _kind(split_unit(path)[0]) != ""


def split_unit(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """Separates a path from the unit that is said behind it, as `axon.swc#um`; or "".

    A file at an address is fetched, and its copy here is the path.

    Raises:
      InputError: an address that cannot be reached.
    """
    text = str(path)
    if is_address(text):
        return local_copy(text), ""
    place, _, unit = text.rpartition("#")
    if unit in swc.UNITS and place and not os.path.lexists(text):
        return Path(place), unit
    return Path(text), ""


def _kind(place: Path) -> str:
    """pickle, flat, swc, precomputed; folder for another one, "" where nothing is."""
    if place.is_file():
        return {".npz": "flat", ".swc": "swc"}.get(place.suffix.lower(), "pickle")
    if not place.is_dir():
        return ""
    if (place / precomputed.INFO).is_file():
        return "precomputed"
    return "swc" if _swc_files(place) else "folder"


def _files(place: Path, kind: str) -> list[Path]:
    if not place.is_dir():
        return [place]
    if kind == "precomputed":
        return [place / precomputed.INFO, *precomputed.neurite_files(place)]
    return _swc_files(place)


def _swc_files(folder: Path) -> list[Path]:
    """A folder's files of SWC, in the order of the numbers in their names."""
    found = (p for p in folder.iterdir() if p.suffix.lower() == ".swc" and p.is_file())
    return sorted(found, key=lambda path: numeric_order.key(path.name))


def _read(
    place: Path,
    kind: str,
    unit: str,
    voxel_size_nm: FloatTriple | None,
    max_bytes: int,
    max_nodes: int,
) -> Skeletons:
    if kind == "flat":
        return flat_file.read(place, max_nodes)
    if kind == "pickle" or voxel_size_nm is None:
        return nisb_file.read(place, voxel_size_nm, max_nodes)
    if kind == "precomputed":
        return precomputed.read(place, voxel_size_nm, max_bytes, max_nodes)
    neurites = _numbered(_files(place, kind))
    return swc.read(neurites, voxel_size_nm, unit, max_nodes)


def _numbered(paths: list[Path]) -> list[tuple[int, Path]]:
    """The id of each file of SWC: the number in its name, or else its place.

    Raises:
      InputError: two files of one number.
    """
    numbers = [_NUMBER.findall(path.stem) for path in paths]
    if all(len(each) == 1 and 0 < int(each[0]) < 1 << 63 for each in numbers):
        by_id: dict[int, Path] = {}
        for (digits,), path in zip(numbers, paths, strict=True):
            if int(digits) in by_id:
                raise InputError(
                    f"{by_id[int(digits)]} and {path} are both of id {int(digits)}; "
                    "rename or remove one"
                )
            by_id[int(digits)] = path
        return list(by_id.items())
    logging.info(
        "%s: not every name has one number above 0 to be its id; numbered 1 to %d by name",
        paths[0] if len(paths) == 1 else paths[0].parent,
        len(paths),
    )
    return list(enumerate(paths, 1))


def _kept(
    cached: Path, path: str | os.PathLike[str], max_nodes: int
) -> Skeletons | None:
    """What an earlier call kept, if that is whole."""
    if not cached.is_file():
        return None
    try:
        return flat_file.read(cached, max_nodes)
    except InputError:
        logging.warning("%s is damaged; reading %s again", cached, path)
        return None


def _sha256(path: Path) -> Any:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256")
