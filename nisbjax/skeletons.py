"""Skeletons of a volume as flat arrays, read from NISB's `skeleton.pkl`.

The file is a pickle of one undirected `networkx.Graph` that holds every skeleton of a
cube (site structuralneurobiologylab.github.io/nisb, BANIS `metrics.py`). BANIS and PyTC
call `pickle.load` on it, which runs whatever code the file names; here the pickle is
read by an unpickler that knows a short list of names, each of which is replaced by an
inert stand-in, so that not even networkx or numpy constructors run on a stranger's data.
"""

import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float64, Int64

from nisbjax.errors import InputError
from nisbjax.typing import FloatTriple

MAX_BYTES = 8 << 30
MAX_NODES = 200_000_000


@dataclass(frozen=True, eq=False)
class Skeletons:
    """All skeletons of one volume.

    Attributes:
        node_id: ground-truth segment of each node, the value that `seg` holds there.
        index_position: voxel index of each node, x y z.
        position_nm: position of each node [nm], x y z.
        edges: rows of the two nodes of each edge.
        source: where the skeletons came from, for messages.
    """

    node_id: Int64[np.ndarray, " n"]
    index_position: Int64[np.ndarray, "n 3"]
    position_nm: Float64[np.ndarray, "n 3"]
    edges: Int64[np.ndarray, "e 2"]
    source: str = "memory"

    @property
    def edge_lengths_nm(self) -> Float64[np.ndarray, " e"]:
        """Euclidean length of each edge [nm]; the file itself stores none."""
        ends = self.position_nm[self.edges]
        return np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)

    def voxel_size_nm(self) -> Float64[np.ndarray, " 3"]:
        """Slope of `position_nm` over `index_position` per axis; nan on a flat axis."""
        index = self.index_position - self.index_position.mean(axis=0)
        position = self.position_nm - self.position_nm.mean(axis=0)
        spread = (index * index).sum(axis=0)
        slope = (index * position).sum(axis=0) / np.where(spread > 0, spread, 1)
        return np.where(spread > 0, slope, np.nan)

    def resolution_note(self, voxel_size_nm: FloatTriple) -> str:
        """A sentence if the configured voxel size [nm] disagrees by over 1 %, else ""."""
        wanted = np.asarray(tuple(voxel_size_nm), float)
        found = self.voxel_size_nm()
        known = np.isfinite(found)
        if np.all(np.abs(found - wanted)[known] <= 0.01 * wanted[known]):
            return ""
        return (
            f"{self.source}: its nm positions mean voxels of {_triple(found)} nm, but "
            f"data.voxel_size_nm is {_triple(wanted)}; lengths are taken from the file"
        )


def load(
    path: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    voxel_size_nm: FloatTriple | None = None,
    max_bytes: int = MAX_BYTES,
    max_nodes: int = MAX_NODES,
) -> Skeletons:
    """Reads `skeleton.pkl`: nodes in the file's order, none dropped.

    Args:
        path: a pickled `networkx.Graph` (any version from 1.11) whose nodes carry `id`,
            `index_position` [voxel] and `nm_position` [nm].
        cache: a folder for the flat arrays, named by the sha256 of the pickle, so that
            the next call on the same content is some fifty times faster.
        voxel_size_nm: where a file has no `nm_position`, index times this [nm] instead.
        max_bytes: refuse a larger file.
        max_nodes: refuse a graph of more nodes.

    Raises:
        InputError: no such file, too large, a damaged pickle, a pickle that names
            anything but a graph, or nodes without what an evaluation needs.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"no skeleton file at {path}; give NISB's skeleton.pkl as "
            "--config.evaluate.skeleton=FILE"
        )
    size = path.stat().st_size
    if size > max_bytes:
        raise InputError(
            f"{path} has {size} bytes, more than the limit of {max_bytes}; "
            "it is hardly a skeleton file"
        )
    cached = None
    if cache is not None:
        digest = content_hash(path, voxel_size_nm)
        cached = Path(cache) / f"skeletons_{digest[:16]}.npz"
        if cached.is_file():
            with np.load(cached, allow_pickle=False) as arrays:
                return Skeletons(**{k: arrays[k] for k in _FIELDS}, source=str(path))
    with open(path, "rb") as file:
        graph = _unpickle(file, path)
    skeletons = _flatten(graph, path, voxel_size_nm, max_nodes)
    if cached is not None:
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_name(f"{cached.name}.{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            np.savez(file, **{k: getattr(skeletons, k) for k in _FIELDS})
        os.replace(temporary, cached)
    return skeletons


def content_hash(
    path: str | os.PathLike[str], voxel_size_nm: FloatTriple | None = None
) -> str:
    """sha256 of the file, and of the voxel size where one stands in for nm positions."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if voxel_size_nm is not None:
        digest.update(repr(tuple(map(float, voxel_size_nm))).encode())
    return digest.hexdigest()


_FIELDS = ("node_id", "index_position", "position_nm", "edges")


# --- the pickle -----------------------------------------------------------------------


class _Sealed(type):
    """Keeps a pickle's BUILD from changing the stand-ins themselves."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"sets {name} on a class")


class _Graph(metaclass=_Sealed):
    """Stands for `networkx.Graph`: keeps its state, does nothing."""

    __slots__ = ("state",)

    def __setstate__(self, state: object) -> None:
        self.state = state


class _View(metaclass=_Sealed):
    """Stands for a cached view of the graph: forgets its state."""

    __slots__ = ()

    def __new__(cls, *_: object) -> Any:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        del state


class _Container(metaclass=_Sealed):
    """Stands for dict, list and the like where they are named or made empty."""

    def __new__(cls, *arguments: object) -> Any:
        if any(arguments):
            raise pickle.UnpicklingError("fills a container by a call")
        return {}


class _Factory(metaclass=_Sealed):
    """Stands for defaultdict and set: no copy, so no small file grows large."""

    def __new__(cls, content: object = None) -> Any:
        return {} if content is None or isinstance(content, type) else content


class _Number(metaclass=_Sealed):
    """Stands for int, float, bool and complex, which files only name."""

    def __new__(cls, *_: object) -> Any:
        raise pickle.UnpicklingError("calls a number's class")


class _Object(metaclass=_Sealed):
    """Stands for `object`, the base that protocols 0 and 1 name."""


class _Reconstructor(metaclass=_Sealed):
    """Stands for `copyreg._reconstructor`, which protocols 0 and 1 call."""

    def __new__(cls, target: object, base: object, state: object) -> Any:
        if target not in (_Graph, _View) or base is not _Object or state is not None:
            raise pickle.UnpicklingError("reconstructs something that is not a graph")
        return object.__new__(target)  # pyright: ignore[reportArgumentType]


class _Encode(metaclass=_Sealed):
    """Stands for `_codecs.encode`, by which protocol 2 stores bytes as latin-1 text."""

    def __new__(cls, text: object, encoding: object = "latin1") -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("encodes something that is not latin-1 text")
        return text.encode("latin1")


class _DType(metaclass=_Sealed):
    """Stands for `numpy.dtype`: numbers of a fixed size, no objects, no fields."""

    __slots__ = ("dtype",)

    def __init__(self, name: object, *_: object) -> None:
        if not isinstance(name, str) or name not in _NUMBERS:
            raise pickle.UnpicklingError(f"has numpy values of dtype {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_NUMBERS |= {"b1", "f2", "f4", "f8", "?"}


class _Scalar(metaclass=_Sealed):
    """Stands for numpy's scalar constructor."""

    def __new__(cls, dtype: Any, data: Any = b"") -> Any:
        if not isinstance(dtype, _DType) or len(data) != dtype.dtype.itemsize:
            raise pickle.UnpicklingError("has a numpy scalar of another size")
        return np.frombuffer(data, dtype.dtype)[0]


class _Array(metaclass=_Sealed):
    """Stands for `numpy.ndarray` and its reconstructor."""

    __slots__ = ("array",)

    def __init__(self, *_: object) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _as_array(data, dtype, shape, "F" if fortran else "C")


class _FromBuffer(metaclass=_Sealed):
    """Stands for numpy's `_frombuffer`, which protocol 5 calls."""

    def __new__(cls, data: Any, dtype: Any, shape: Any, order: Any) -> Any:
        array = _Array()
        array.array = _as_array(data, dtype, shape, "F" if order == "F" else "C")
        return array


def _as_array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _DType):
        raise pickle.UnpicklingError("has a numpy array of unknown type")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


_VIEWS = {
    "networkx.classes.reportviews": (
        "NodeView NodeDataView EdgeView EdgeDataView DegreeView DiDegreeView"
    ),
    "networkx.classes.coreviews": "AdjacencyView AtlasView",
}
_NAMES: dict[tuple[str, str], type] = {
    ("networkx.classes.graph", "Graph"): _Graph,
    ("copyreg", "_reconstructor"): _Reconstructor,
    ("copy_reg", "_reconstructor"): _Reconstructor,
    ("_codecs", "encode"): _Encode,
    ("collections", "OrderedDict"): _Container,
    ("collections", "defaultdict"): _Factory,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
}
for _module, _views in _VIEWS.items():
    _NAMES |= {(_module, name): _View for name in _views.split()}
for _module in ("builtins", "__builtin__"):
    _NAMES |= {(_module, name): _Container for name in ("dict", "list", "tuple")}
    _NAMES |= {(_module, name): _Factory for name in ("set", "frozenset")}
    _NAMES |= {(_module, name): _Number for name in ("int", "float", "bool", "complex")}
    _NAMES[_module, "object"] = _Object
for _module in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _NAMES[f"{_module}.multiarray", "scalar"] = _Scalar
    _NAMES[f"{_module}.multiarray", "_reconstruct"] = _Array
    _NAMES[f"{_module}.numeric", "_frombuffer"] = _FromBuffer


class _GraphUnpickler(pickle.Unpickler):
    """Resolves the names above and nothing else."""

    def find_class(self, module: str, name: str) -> type:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise InputError(
                f"the pickle names {module}.{name}, which no skeleton file needs; it was "
                "not run; take skeleton.pkl from its publisher again"
            ) from None

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError("refers to objects outside the file")


def _unpickle(file: BinaryIO, path: Path) -> Mapping[str, Any]:
    """The state of the graph in the pickle."""
    try:
        graph = _GraphUnpickler(file).load()
    except InputError as error:
        raise InputError(f"{path} refused: {error}") from None
    except Exception as error:  # noqa: BLE001 a damaged pickle fails in any way it likes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path} is not a whole skeleton pickle ({reason}); wanted one pickled "
            "networkx.Graph; copy it again"
        ) from None
    if not isinstance(graph, _Graph) or not isinstance(
        getattr(graph, "state", None), dict
    ):
        what = "an empty object" if isinstance(graph, _Graph) else type(graph).__name__
        raise InputError(f"{path} holds {what}; wanted one pickled networkx.Graph")
    return graph.state  # pyright: ignore[reportReturnType]


# --- the graph ------------------------------------------------------------------------


def _flatten(
    graph: Mapping[str, Any],
    path: Path,
    voxel_size_nm: FloatTriple | None,
    max_nodes: int,
) -> Skeletons:
    # networkx 1 calls them node and adj; later ones keep views under these names
    nodes = graph.get("_node", graph.get("node"))
    adjacency = graph.get("_adj", graph.get("adj"))
    if not isinstance(nodes, dict) or not isinstance(adjacency, dict):
        raise InputError(f"{path} holds a graph without nodes and adjacency")
    if len(nodes) > max_nodes:
        raise InputError(f"{path} holds {len(nodes)} nodes, over the limit {max_nodes}")
    attributes = list(nodes.values())
    node_id = _column(attributes, "id", (), path, integral=True)
    index = _column(attributes, "index_position", (3,), path, integral=True)
    if voxel_size_nm is not None and not any("nm_position" in a for a in attributes):
        position_nm = index * np.asarray(tuple(voxel_size_nm), float)
    else:
        position_nm = _column(attributes, "nm_position", (3,), path, integral=False)
    row = {node: i for i, node in enumerate(nodes)}
    try:
        both = [(row[u], row[v]) for u, near in adjacency.items() for v in near]
    except (KeyError, TypeError):
        raise InputError(f"{path} has edges to nodes that it does not hold") from None
    pairs = np.array(both, np.int64).reshape(-1, 2)
    edges = pairs[pairs[:, 0] <= pairs[:, 1]]
    loops = np.count_nonzero(pairs[:, 0] == pairs[:, 1])
    if len(pairs) != 2 * len(edges) - loops:
        raise InputError(f"{path} holds a directed graph; wanted an undirected one")
    return Skeletons(node_id, index, position_nm, edges, source=str(path))


def _column(
    attributes: list[Any], name: str, shape: tuple, path: Path, *, integral: bool
) -> np.ndarray:
    """One attribute of all nodes as int64 or float64 `[n *shape]`."""
    missing = [i for i, a in enumerate(attributes) if a.get(name) is None]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(attributes)} nodes have no {name!r}, the "
            f"first of them at row {missing[0]}; wanted id, index_position, nm_position "
            "on every node"
        )
    values = [a[name] for a in attributes]
    if values and isinstance(values[0], _Array):
        values = [v.array if isinstance(v, _Array) else v for v in values]
    try:
        column = np.array(values, dtype=None if integral else np.float64)
        column = column.reshape(len(values), *shape) if not values else column
        if column.shape != (len(values), *shape) or column.dtype.kind not in "iufb":
            raise ValueError
    except (ValueError, TypeError):
        raise InputError(
            f"{path}: {name!r} of some nodes is not {'three numbers' if shape else 'a number'}; "
            f"the first node has {str(values[0])[:60]!r}"
        ) from None
    if not np.isfinite(column).all():
        raise InputError(f"{path}: {name!r} of some nodes is not finite")
    if not integral:
        return column
    # compared in its own type first, as a cast out of range would wrap around
    fits = (column < np.float64(2**63)) & (column >= np.float64(-(2**63)))
    whole = np.where(fits, column, 0).astype(np.int64)
    if not np.array_equal(whole, column):
        raise InputError(
            f"{path}: {name!r} of some nodes is not a whole number that fits int64; "
            f"the first node has {str(values[0])[:60]!r}"
        )
    return whole


def _triple(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"
