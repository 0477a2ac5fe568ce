"""The arrays of an output in chunks: zarr, OME-Zarr, precomputed and N5, through TensorStore.

An array is made or opened again, so that a conversion that was killed goes on. What groups
say of their scales (OME-Zarr, N5) is written beside. Chunks of zeros are left out, but in
precomputed, where cloud-volume takes a missing file for an error.
"""

import math
import pathlib
from typing import Any

import tensorstore as ts

from nisbjax.convert.attributes import ORIGIN
from nisbjax.convert.plan import Plan, in_order
from nisbjax.convert.pyramid import Level
from nisbjax.store import access, files, n5, places, voxel_size
from nisbjax.store.attributes import read_json_object
from nisbjax.store.comparison import with_words
from nisbjax.store.formats import zarr_spec
from nisbjax.store.volume import Volume

_N5 = "2.5.1"  # of its specification
_MANY = 1 << 33  # voxels, whose chunks do not lie in one folder
_BLOSC = {"cname": "zstd", "clevel": 3}
_GZIP_LEVEL = 5


def path_of(plan: Plan, level: Level) -> pathlib.Path:
    """Where the array of a scale lies; the folder of its chunks in precomputed."""
    return plan.path / name_of(plan, level) if _is_group(plan) else plan.path


def name_of(plan: Plan, level: Level) -> str:
    """What a scale is called in its group."""
    if plan.format.name == "precomputed":
        return "_".join(f"{s:g}" for s in plan.size_of(level) or ())
    return f"s{level.number}" if plan.format.name == "n5" else str(level.number)


def open_level(plan: Plan, level: Level) -> Volume:
    """The array of a scale, made where it is not there, to read and to write.

    Its axes are those of the input, whatever their order on disk.
    """
    spec = _spec(plan, level)
    store = ts.open(spec, open=True, create=True, read=True, write=True).result()
    _write_words(plan, level)
    return _volume(plan, level, store)


def open_sent(plan: Plan, level: Level) -> Volume:
    """The array of a scale whose chunks were sent to an address, to read."""
    target = plan.sent_to
    assert target is not None
    inner = path_of(plan, level).relative_to(plan.path)
    folder = target / str(inner)
    if plan.format.name == "precomputed":  # whose scales have one folder
        folder = target
    spec = _spec(plan, level) | {"kvstore": places.kvstore_of(folder)}
    store = ts.open(
        spec, open=True, read=True, assume_metadata=True, context=access.context()
    ).result()
    return _volume(plan, level, store)


def _volume(plan: Plan, level: Level, store: ts.TensorStore) -> Volume:
    """An array with the axes of the input."""
    store = store[ts.d[:].translate_to[0]]
    axes = plan.order
    if store.rank > len(axes):  # precomputed always has channels
        store = store[..., 0]
    store = in_order(store, axes, plan.source.axes)
    return Volume(store, plan.source.axes, source=str(path_of(plan, level)))


def write_group(plan: Plan) -> None:
    """What the group of several scales says of them; nothing for a single array."""
    if plan.format.is_ome:
        _write_ome(plan)
    if plan.format.name == "n5":
        _write_container(plan.path)
    if plan.format.name == "n5" and _is_group(plan):
        size = plan.voxel_size_nm
        resolution = (
            {"pixelResolution": {"dimensions": size, "unit": "nm"}} if size else {}
        )
        factors = [list(level.factors) for level in plan.levels]
        said = {"scales": factors, "multiScale": True, **resolution}
        _add(plan.path / "attributes.json", said)


def _is_group(plan: Plan) -> bool:
    several = len(plan.levels) > 1
    return (
        plan.format.is_ome
        or plan.format.name == "precomputed"
        or (plan.format.name == "n5" and several)
    )


def _spec(plan: Plan, level: Level) -> dict[str, Any]:
    make = {
        2: _zarr2,
        3: _zarr3,
        0: _n5 if plan.format.name == "n5" else _precomputed,
    }[plan.format.zarr_version]
    return make(plan, level)


def _shape_and_chunks(plan: Plan, level: Level) -> tuple[list[int], list[int]]:
    shape = plan.in_order(level.shape, plan.channels)
    chunks = plan.in_order(plan.chunks, plan.chunk_channels())
    if plan.inner is None:  # shards stay multiples of what lies in them
        chunks = tuple(map(min, chunks, shape))
    return list(shape), list(chunks)


def _zarr2(plan: Plan, level: Level) -> dict[str, Any]:
    shape, chunks = _shape_and_chunks(plan, level)
    compressor = {
        "blosc": {"id": "blosc", "shuffle": 1, **_BLOSC},
        "gzip": {"id": "gzip", "level": _GZIP_LEVEL},
        "zstd": {"id": "zstd", "level": 3},
        "none": None,
    }[plan.compression]
    nested = plan.format.is_ome or math.prod(shape) > _MANY
    return zarr_spec(path_of(plan, level), "zarr") | {
        "metadata": {
            "shape": shape,
            "chunks": chunks,
            "dtype": plan.dtype.str,
            "fill_value": False if plan.dtype.kind == "b" else 0,
            "compressor": compressor,
            "dimension_separator": "/" if nested else ".",
            "order": "C",
            "filters": None,
        }
    }


def _zarr3(plan: Plan, level: Level) -> dict[str, Any]:
    shape, chunks = _shape_and_chunks(plan, level)
    packed = {
        "blosc": [{"name": "blosc", "configuration": {"shuffle": "shuffle", **_BLOSC}}],
        "gzip": [{"name": "gzip", "configuration": {"level": _GZIP_LEVEL}}],
        "zstd": [{"name": "zstd", "configuration": {"level": 3}}],
        "none": [],
    }[plan.compression]
    codecs: list[dict[str, Any]] = [{"name": "bytes"}, *packed]
    if plan.inner is not None:
        inner = plan.in_order(plan.inner, plan.chunk_channels())
        sharding = {"chunk_shape": list(inner), "codecs": codecs}
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
    return zarr_spec(path_of(plan, level), "zarr3") | {
        "metadata": {
            "shape": shape,
            "data_type": plan.dtype.name,
            "fill_value": False if plan.dtype.kind == "b" else 0,
            "chunk_grid": grid,
            "codecs": codecs,
            "dimension_names": list(plan.order),
            "attributes": plan.attributes_of(level),
        }
    }


def _n5(plan: Plan, level: Level) -> dict[str, Any]:
    shape, chunks = _shape_and_chunks(plan, level)
    compression = {
        "gzip": {"type": "gzip", "level": _GZIP_LEVEL},
        "blosc": {"type": "blosc", "shuffle": 1, **_BLOSC},
        "none": {"type": "raw"},
    }[plan.compression]
    return {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": f"{path_of(plan, level).resolve()}/"},
        "metadata": {
            "dimensions": shape,
            "blockSize": chunks,
            "dataType": plan.dtype.name,
            "compression": compression,
        },
    }


def _precomputed(plan: Plan, level: Level) -> dict[str, Any]:
    offset = plan.attributes.get(ORIGIN, [0, 0, 0])
    segments = plan.compression == "compressed_segmentation"
    scale: dict[str, Any] = {
        "key": name_of(plan, level),
        "size": list(level.shape),
        "resolution": plan.size_of(level),
        # Rounded down: where it is no multiple, a coarse scale lies less than a voxel off.
        "voxel_offset": [o // f for o, f in zip(offset, level.factors, strict=True)],
        "chunk_size": list(map(min, plan.chunks, level.shape)),
        "encoding": "compressed_segmentation" if segments else "raw",
    }
    if segments:
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    return {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{plan.path.resolve()}/"},
        "store_data_equal_to_fill_value": True,
        "multiscale_metadata": {
            "type": "segmentation" if plan.kind == "labels" else "image",
            "data_type": plan.dtype.name,
            "num_channels": plan.channels,
        },
        "scale_metadata": scale,
    }


def _write_words(plan: Plan, level: Level) -> None:
    """Attributes, which TensorStore's drivers of zarr v2, N5 and precomputed do not write."""
    said = plan.attributes_of(level)
    place = path_of(plan, level)
    if plan.format.zarr_version == 2:
        _add(place / ".zattrs", said)
    elif plan.format.name == "n5":
        said = {k: v for k, v in said.items() if k not in n5.OWN}
        size = plan.size_of(level)
        if size:
            said["pixelResolution"] = {"dimensions": size, "unit": "nm"}
        if level.number:
            said["downsamplingFactors"] = list(level.factors)
        _add(place / "attributes.json", said)
    elif plan.format.name == "precomputed" and not level.number:
        said_of_scales = (voxel_size.KEY, ORIGIN, "axes")
        own = {k: v for k, v in said.items() if k not in said_of_scales}
        _add(plan.path / "info", {"attributes": own})


def _add(path: pathlib.Path, said: dict[str, Any]) -> None:
    """Adds to a file of JSON, if anything is new; what others wrote there stays."""
    found = read_json_object(path) or {}
    both = with_words(found, files.plain(said))
    if both != found or not path.exists():
        files.write_json(path, both)


def _write_container(path: pathlib.Path) -> None:
    """The version that a folder `.n5` around the output says, unless it says one."""
    for folder in path.parents:
        if folder.suffix.lower() == ".n5":
            place = folder / "attributes.json"
            _add(place, {"n5": _N5, **(read_json_object(place) or {})})
            return


def _write_ome(plan: Plan) -> None:
    kinds = {"c": "channel"}
    size = plan.voxel_size_nm
    unit = {"unit": "nanometer"} if size else {}
    axes = [
        {"name": a, "type": kinds[a]}
        if a in kinds
        else {"name": a, "type": "space", **unit}
        for a in plan.order
    ]
    image = {
        "name": plan.path.name,
        "axes": axes,
        "datasets": [_dataset(plan, level) for level in plan.levels],
        "type": plan.reduction,
    }
    if plan.format.zarr_version == 2:
        _add(plan.path / ".zgroup", {"zarr_format": 2})
        _add(plan.path / ".zattrs", {"multiscales": [{"version": "0.4", **image}]})
        return
    ome = {"version": "0.5", "multiscales": [image]}
    group = {"zarr_format": 3, "node_type": "group"}
    _add(plan.path / "zarr.json", {**group, "attributes": {"ome": ome}})


def _dataset(plan: Plan, level: Level) -> dict[str, Any]:
    """Scale and place of a level: its first voxel's centre lies between those it is of."""
    one = plan.voxel_size_nm or [1.0] * 3
    offset = plan.attributes.get(ORIGIN, [0, 0, 0])
    sizes = [s * f for s, f in zip(one, level.factors, strict=True)]
    first = [
        s * (o + (f - 1) / 2)
        for s, o, f in zip(one, offset, level.factors, strict=True)
    ]
    by_axis = {
        **dict(zip("xyz", zip(sizes, first, strict=True), strict=True)),
        "c": (1.0, 0.0),
    }
    transformations: list[dict[str, Any]] = [
        {"type": "scale", "scale": [by_axis[a][0] for a in plan.order]}
    ]
    if any(first):
        transformations.append(
            {"type": "translation", "translation": [by_axis[a][1] for a in plan.order]}
        )
    return {
        "path": name_of(plan, level),
        "coordinateTransformations": transformations,
    }
