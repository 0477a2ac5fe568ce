"""A pickled `networkx.Graph`, read without running anything that the pickle names.

NISB ships its skeletons as a pickle, and a pickle is a program: BANIS and PyTC run it.
Here a short list of names is known, those that networkx 1 to 3 and numpy 1 and 2 write,
and each is replaced by an inert stand-in, so that not even their constructors run on a
stranger's data; `pickle_bounds` looks beforehand at depth, keys and claims of memory.
"""

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nisbjax.errors import InputError
from nisbjax.store import pickle_bounds


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


class _Extra(_View):
    """Stands for what users keep beside a graph, dates and paths: forgotten, too."""

    __slots__ = ()

    def append(self, _: object) -> None:
        """A pickle's APPEND."""

    def extend(self, _: object) -> None:
        """A pickle's APPENDS."""

    def __setitem__(self, _: object, __: object) -> None:
        """A pickle's SETITEM."""


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
        if not isinstance(name, str) or not (name in _NUMBERS or _TEXT.fullmatch(name)):
            raise pickle.UnpicklingError(f"has numpy values of dtype {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_NUMBERS |= {"b1", "f2", "f4", "f8", "?"}
_TEXT = re.compile("[SU][0-9]{1,6}")


class _Scalar(metaclass=_Sealed):
    """Stands for numpy's scalar constructor."""

    def __new__(cls, dtype: Any, data: Any = b"") -> Any:
        if not isinstance(dtype, _DType) or len(data) != dtype.dtype.itemsize:
            raise pickle.UnpicklingError("has a numpy scalar of another size")
        return np.frombuffer(data, dtype.dtype)[0]


class Array(metaclass=_Sealed):
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
        array = Array()
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
    "networkx.classes.function": "frozen",  # what nx.freeze puts in place of add_node
}
_EXTRAS = {
    "datetime": "date datetime time timedelta timezone",
    "pathlib": "PosixPath PurePosixPath PureWindowsPath WindowsPath",
    "collections": "Counter deque",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
}
# Other graphs of networkx, and what to do about them.
_OTHER_GRAPHS = {
    "DiGraph": "a directed graph; pickle its G.to_undirected()",
    "MultiDiGraph": "a directed graph of several edges; pickle nx.Graph(G)",
    "MultiGraph": "a graph of several edges between two nodes; pickle nx.Graph(G)",
}
_NAMES: dict[tuple[str, str], type] = {
    ("networkx.classes.graph", "Graph"): _Graph,
    ("copyreg", "_reconstructor"): _Reconstructor,
    ("copy_reg", "_reconstructor"): _Reconstructor,
    ("_codecs", "encode"): _Encode,
    ("collections", "OrderedDict"): _Container,
    ("collections", "defaultdict"): _Factory,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): Array,
}
for _module, _views in _VIEWS.items():
    _NAMES |= {(_module, name): _View for name in _views.split()}
for _module, _names in _EXTRAS.items():
    _NAMES |= {(_module, name): _Extra for name in _names.split()}
for _module in ("builtins", "__builtin__"):
    _NAMES |= {(_module, name): _Container for name in ("dict", "list", "tuple")}
    _NAMES |= {(_module, name): _Factory for name in ("set", "frozenset")}
    _NAMES |= {(_module, name): _Number for name in ("int", "float", "bool", "complex")}
    _NAMES[_module, "object"] = _Object
for _module in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _NAMES[f"{_module}.multiarray", "scalar"] = _Scalar
    _NAMES[f"{_module}.multiarray", "_reconstruct"] = Array
    _NAMES[f"{_module}.numeric", "_frombuffer"] = _FromBuffer


class _GraphUnpickler(pickle.Unpickler):
    """Resolves the names above and nothing else."""

    def find_class(self, module: str, name: str) -> type:
        try:
            return _NAMES[module, name]
        except KeyError:
            if module.startswith("networkx.classes."):
                kind = "a view of a graph; pickle its G.copy()"
                raise InputError(
                    f"the pickle names {module}.{name}: it holds "
                    f"{_OTHER_GRAPHS.get(name, kind)}; wanted one networkx.Graph"
                ) from None
            raise InputError(
                f"the pickle names {module}.{name}, which no skeleton file needs; it was "
                "not run; take skeleton.pkl from its publisher again"
            ) from None

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError("refers to objects outside the file")


def read(path: Path) -> Mapping[str, Any]:
    """The state of the graph in a pickle: its dictionaries, with `Array`s for numpy's.

    Raises:
      InputError: the pickle is damaged, names anything but a graph and numbers, asks
        for more memory than its size can mean, or holds something else.
    """
    data = path.read_bytes()
    try:
        problem = pickle_bounds.problem(data)
        if problem:
            raise pickle.UnpicklingError(problem)
        graph = _GraphUnpickler(io.BytesIO(data)).load()
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
