"""neuroglancer's precomputed skeletons: a folder with `info`, a binary file for each id.

(neuroglancer, src/datasource/precomputed/skeletons.md.) Unsharded, as cloud-volume and
kimimaro's users write them, gzipped or not; vertex attributes are passed over. Positions
are neuroglancer's, by which the centre of voxel i is at i + 1/2 times its size.
"""

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from nisbjax.errors import InputError
from nisbjax.skeletons.arrays import Skeletons, voxels_of
from nisbjax.store import files, numeric_order, records
from nisbjax.store.schema import (
    anything,
    list_of,
    number,
    one_of,
    optional,
    text,
    whole,
)
from nisbjax.typing import FloatTriple

INFO = "info"
TYPE = "neuroglancer_skeletons"
_ATTRIBUTE = {
    "data_type": one_of(
        "float32", "int8", "uint8", "int16", "uint16", "int32", "uint32"
    ),
    "num_components": whole(1, 4096),
}
_SCHEMA = {
    "@type": one_of(TYPE),
    "transform": optional(list_of(number(), 12)),
    "vertex_attributes": optional(list_of(_ATTRIBUTE)),
    "sharding": optional(anything()),
}
_MOST_INFO = 1_000_000  # bytes


def neurite_files(folder: Path) -> list[Path]:
    """Files of neurites: a number, maybe with `.gz`, in the order of the numbers.

    Raises:
      InputError: two of one id, or none at all.
    """
    found: dict[str, Path] = {}
    for path in folder.iterdir():
        name = path.name.removesuffix(".gz")
        if not (name.isascii() and name.isdigit() and path.is_file()):
            continue
        number_of = str(int(name))
        if number_of in found:
            raise InputError(
                f"{found[number_of]} and {path} are both of id {number_of}; remove one"
            )
        found[number_of] = path
    if not found:
        raise InputError(f"{folder} has an {INFO}, but no file of a skeleton beside it")
    return [found[name] for name in sorted(found, key=numeric_order.key)]


def read(
    folder: Path, voxel_size_nm: FloatTriple, max_bytes: int, max_nodes: int
) -> Skeletons:
    """Skeletons in the order of their ids; positions by the folder's `transform`.

    Args:
      folder: with `info`.
      voxel_size_nm: x y z, by which positions become voxels.
      max_bytes: of all files, unpacked.
      max_nodes: of all files.

    Raises:
      InputError: naming the file: an `info` of another kind, or sharded; a file that is cut
        or too long, has edges to vertices that it does not hold, or positions that are not
        finite; an id beyond 63 bits; or more than the limits.
    """
    info = _info(folder)
    width = 12 + sum(
        np.dtype(each["data_type"]).itemsize * each["num_components"]
        for each in info.get("vertex_attributes", ())
    )
    matrix = np.array(info.get("transform", np.eye(3, 4).ravel()), float).reshape(3, 4)
    identities, positions, edges = [], [], []
    nodes = 0
    for path in neurite_files(folder):
        identity = int(path.name.removesuffix(".gz"))
        if identity >= 1 << 63:
            raise InputError(f"{path}: its id does not fit int64; number it again")
        content = _content(path, max_bytes)
        max_bytes -= len(content)
        position, pairs = _parse(content, path, width, max_nodes - nodes)
        identities.append(np.full(len(position), identity, np.int64))
        positions.append(position)
        edges.append(pairs + nodes)
        nodes += len(position)
    position_nm = np.concatenate(positions) @ matrix[:, :3].T + matrix[:, 3]
    return Skeletons(
        np.concatenate(identities),
        voxels_of(position_nm, voxel_size_nm),
        position_nm,
        np.concatenate(edges),
        str(folder),
        placed=True,
    )


def write(
    skeletons: Skeletons, folder: str | os.PathLike, voxel_size_nm: FloatTriple
) -> None:
    """Writes `info` and a file for each id, positions [nm] in float32.

    Args:
      skeletons: whose positions are those of the low corners of voxels, as NISB's are;
        `transform` moves them to the centres that neuroglancer shows.
      folder: made if missing.
      voxel_size_nm: x y z.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    transform = np.eye(3, 4)
    transform[:, 3] = np.asarray(tuple(voxel_size_nm)) / 2
    order = np.argsort(skeletons.node_id, kind="stable")
    row = np.empty_like(order)
    ids, first, counts = np.unique(
        skeletons.node_id[order], return_index=True, return_counts=True
    )
    row[order] = np.arange(len(order)) - np.repeat(first, counts)
    edge_id = skeletons.node_id[skeletons.edges[:, 0]]
    by_id = np.argsort(edge_id, kind="stable")
    bounds = (
        np.searchsorted(edge_id[by_id], ids),
        np.searchsorted(edge_id[by_id], ids, side="right"),
    )
    for i, one in enumerate(ids.tolist()):
        position = skeletons.position_nm[order[first[i] : first[i] + counts[i]]]
        edges = row[skeletons.edges[by_id[bounds[0][i] : bounds[1][i]]]]
        content = np.array([len(position), len(edges)], "<u4").tobytes()
        content += position.astype("<f4").tobytes() + edges.astype("<u4").tobytes()
        with files.replacing(folder / str(one)) as temporary:
            temporary.write_bytes(content)
    files.write_json(
        folder / INFO,
        {"@type": TYPE, "transform": transform.ravel(), "vertex_attributes": []},
    )


def _info(folder: Path) -> dict[str, Any]:
    """What `info` says, if these are skeletons, each in a file of its own."""
    path = folder / INFO
    kind = records.read_json(
        path,
        {"@type": optional(text()), "skeletons": optional(text())},
        most_bytes=_MOST_INFO,
    )
    if kind.get("@type") != TYPE and "skeletons" in kind:
        raise InputError(
            f"{path} is that of a volume; its skeletons lie in {folder / kind['skeletons']}"
        )
    info = records.read_json(path, _SCHEMA, "wanted skeletons", most_bytes=_MOST_INFO)
    if info.get("sharding"):
        raise InputError(
            f"{path} says that the skeletons are sharded; wanted a file for each, as "
            "cloud-volume writes them without sharding"
        )
    return info


def _content(path: Path, most: int) -> bytes:
    """The bytes of a file, unpacked where its name ends in .gz."""
    content = files.read_bytes(path, most)
    if path.suffix != ".gz":
        return content
    try:
        unpacking = zlib.decompressobj(wbits=31)
        unpacked = unpacking.decompress(content, most + 1)
    except zlib.error as error:
        raise InputError(
            f"{path} cannot be unpacked ({error}); copy it again"
        ) from None
    if len(unpacked) > most or unpacking.unconsumed_tail:
        raise InputError(f"{path} has more than {most} bytes once unpacked")
    if not unpacking.eof:
        raise InputError(f"{path} was cut; copy it again")
    return unpacked


def _parse(
    content: bytes, path: Path, width: int, most: int
) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, "e 2"]]:
    """Stored positions and edges; `width` is what a vertex takes with its attributes."""
    if len(content) < 8:
        raise InputError(f"{path} has {len(content)} bytes; wanted a whole skeleton")
    nodes, links = map(int, np.frombuffer(content, "<u4", 2))
    if nodes > most:
        raise InputError(f"{path} goes beyond the limit of nodes; divide the folder")
    wanted = 8 + nodes * width + links * 8
    if len(content) != wanted:
        raise InputError(
            f"{path} has {len(content)} bytes, and its {nodes} vertices with {links} edges "
            f"take {wanted} by {INFO}; copy both again"
        )
    position = np.frombuffer(content, "<f4", 3 * nodes, 8).reshape(-1, 3)
    edges = np.frombuffer(content, "<u4", 2 * links, 8 + 12 * nodes).reshape(-1, 2)
    if not np.isfinite(position).all():
        row = int(np.flatnonzero(~np.isfinite(position).all(axis=1))[0])
        raise InputError(f"{path}: the position of vertex {row} is not finite")
    if links and int(edges.max()) >= nodes:
        raise InputError(
            f"{path} has edges to vertex {int(edges.max())} and holds {nodes} vertices"
        )
    return position.astype(np.float64), edges.astype(np.int64)
