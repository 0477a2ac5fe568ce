"""N5 arrays and groups of their scales, read through TensorStore: x first, as they lie.

The first axis of an N5 array is the fastest one on disk, so without a word it is x y z (and
channels), where zarr's is the slowest. COSEM's and xarray's words follow numpy's order, and
are turned. A group of `s0`, `s1`, ... (Paintera, BigDataViewer, COSEM) means its `s0`. PyTC
and BANIS read no N5.
"""

from typing import Any

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import axes, claims, places, scales, voxel_size
from nisbjax.store.attributes import read_json_object
from nisbjax.store.places import Place
from nisbjax.store.views import words

_METADATA = "attributes.json"
_READ = ("dimensions", "blockSize", "dataType", "compression", "resolution", "units")
# Names that mean something to its programs, so that no other attribute can have them.
OWN = (
    *_READ,
    "pixelResolution",
    "downsamplingFactors",
    "scales",
    "multiScale",
    "n5",
)
_FINEST = "s0"
_BY_CUSTOM = {3: "xyz", 4: "xyzc", 5: "xyzct"}
# Attributes whose lists follow numpy's order, the slowest axis first.
_TRANSFORM = "transform"
_NUMPY_ORDER = (_TRANSFORM, "_array_dimensions", "dimension_names")


def is_array(path: Place) -> bool:
    """Whether a folder is an N5 array, and no zarr array beside."""
    if (path / ".zarray").exists() or (path / "zarr.json").exists():
        return False
    return "dimensions" in (read_json_object(path / _METADATA) or {})


def array_of(path: Place) -> Place:
    """The array that a folder means: `s0` of a group of scales, else the folder itself.

    Raises:
      InputError: an N5 group without scales.
    """
    if _is_zarr(path) or is_array(path):
        return path
    inside = _arrays_in(path)
    if _FINEST in inside:
        scales.say_finest(str(path), tuple(inside), _FINEST)
        return path / _FINEST
    if (path / _METADATA).exists():
        held = ", ".join(inside) or "no array"
        raise InputError(
            f"{path} is an N5 group; name an array inside it; it holds {held}"
        )
    return path


def open_n5(
    path: Place,
) -> tuple[ts.TensorStore, dict[str, Any], dict[str, Any]]:
    """An array, its attributes, and words on its axes.

    Raises:
      InputError: metadata that cannot be, or a compression that is not known here.
    """
    found = read_json_object(path / _METADATA) or {}
    shape, blocks = found.get("dimensions"), found.get("blockSize")
    dtype = claims.require_numbers(path, found.get("dataType"))
    claims.require_possible(path, shape, blocks, dtype.itemsize)
    try:
        store = ts.open(
            spec_of(path), read=True, context=places.context_of(path)
        ).result()
    except Exception as error:  # noqa: BLE001 (TensorStore has a few types for all)
        raise InputError(
            f"{path} cannot be read as an N5 array: {words(error)}"
        ) from None
    attributes = {k: v for k, v in found.items() if k not in _READ}
    turned = {
        key: attributes.pop(key)
        for key in list(attributes)
        if key.lower() in _NUMPY_ORDER and _names_axes(key, attributes[key])
    }
    facts = {key: _turned(value) for key, value in turned.items()}
    attributes = {k: v for k, v in attributes.items() if k.lower() != _TRANSFORM}
    if not any(axes.is_word(key) for key in {**attributes, **turned}):
        facts = {"series": _BY_CUSTOM.get(store.rank, "")}  # a custom, no word
    size = _voxel_size(path, found, store.rank)
    if size is not None:
        attributes = {voxel_size.KEY: size, **attributes}
    return store, attributes, facts


def spec_of(path: Place) -> dict[str, Any]:
    """TensorStore's specification of an array."""
    return places.spec_of("n5", path)


def _is_zarr(path: Place) -> bool:
    return any((path / name).exists() for name in (".zarray", ".zgroup", "zarr.json"))


def _arrays_in(path: Place) -> list[str]:
    if isinstance(path, places.Address):  # which is not listed
        return [_FINEST] if is_array(path / _FINEST) else []
    try:
        found = [p.parent.name for p in path.glob(f"*/{_METADATA}")]
    except OSError:
        return []
    return sorted(name for name in found if is_array(path / name))


def _names_axes(key: str, value: Any) -> bool:
    """Most programs mean a matrix by `transform`, and not COSEM's object."""
    if key.lower() != _TRANSFORM:
        return True
    return isinstance(value, dict) and isinstance(value.get("axes"), list)


def _turned(value: Any) -> Any:
    """A word in numpy's order, in that of N5."""
    if isinstance(value, dict):
        is_fortran = value.get("ordering") == "F"
        return value["axes"] if is_fortran else value["axes"][::-1]
    return value[::-1] if isinstance(value, list) else value


def _voxel_size(path: Place, found: dict[str, Any], rank: int) -> list[float] | None:
    """Sizes x y z [nm], in the words of COSEM, BigDataViewer and TensorStore."""
    transform = found.get(_TRANSFORM)
    if isinstance(transform, dict) and isinstance(transform.get("units"), list):
        # Its lists stand in the same order, whichever that is.
        said = {"transform": transform.get("axes")}
        letters = axes.named_axes(str(path), (1,) * rank, {}, said)
        scale, units = transform.get("scale"), transform["units"]
        sizes = voxel_size.require_sizes(path, "scale", scale, len(units))
        if letters and len(units) == len(letters):
            return voxel_size.from_axes(letters, sizes, units)
    if isinstance(found.get("units"), list) and "resolution" in found:
        letters = axes.named_axes(
            str(path), (1,) * rank, {"axes": found.get("axes")}, {}
        )
        sizes = voxel_size.require_sizes(path, "resolution", found["resolution"], rank)
        letters = letters or _BY_CUSTOM.get(rank, "")
        if len(letters) == rank == len(found["units"]):
            return voxel_size.from_axes(letters, sizes, found["units"])
    said, factors = found.get("pixelResolution"), [1.0] * 3
    if said is None:  # of the group, times what this array was reduced by
        said = (read_json_object(path.parent / _METADATA) or {}).get("pixelResolution")
        reduced = found.get("downsamplingFactors")
        if said is not None and reduced is not None:
            factors = voxel_size.require_sizes(path, "downsamplingFactors", reduced, 3)
    if isinstance(said, dict) and "dimensions" in said:
        sizes = voxel_size.require_sizes(path, "pixelResolution", said["dimensions"], 3)
        sizes = [a * b for a, b in zip(sizes, factors, strict=True)]
        return voxel_size.from_axes("xyz", sizes, [said.get("unit")] * 3)
    return None
