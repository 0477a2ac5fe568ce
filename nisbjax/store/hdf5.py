"""HDF5 datasets as TensorStores: links, layouts and attributes.

Contiguous datasets, h5py's default, are read in small cubes, compressed ones by the chunk
(`hdf5_chunks`), and everything else (virtual datasets, filters of plugins) through HDF5. A
dataset that would read from another file by an external link or external storage is
refused: h5py (and so PyTC) follows both, and fills a virtual dataset whose sources are
gone with zeros.
"""

import functools
import json
import math
import os
import pathlib
from typing import Any

import h5py
import numpy as np
import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import axes as axes_lib
from nisbjax.store import claims, filters, hdf5_chunks
from nisbjax.store.attributes import tidy
from nisbjax.store.views import chunk_of, view

_MOST_HOPS = 16  # of soft links, one after another
_MOST_ATTRIBUTE = 1 << 20  # bytes
_MOST_NAMES = 20  # in a message


def open_hdf5(
    path: pathlib.Path, dataset: str | None
) -> tuple[ts.TensorStore, dict[str, Any], dict[str, Any]]:
    """A dataset, its attributes, and further words on its axes.

    Args:
      path: of a regular file.
      dataset: its name; `main`, or the only one, where None.

    Raises:
      InputError: no HDF5, no such dataset, or one that cannot be read for what it is.
    """
    try:
        with h5py.File(path, "r") as file:
            found = choose(path, file, dataset)
            claims.require_numbers(path, _dtype(found))
            shape, dtype, chunks = _layout(path, found)
            attributes, facts = _attributes(path, found)
            name = str(found.name)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (h5py has one for each kind of damage)
        raise InputError(f"{path} cannot be read as HDF5: {error}") from None
    # The modification time is in the specification, so that a file written again under the
    # same name is not read through a stale handle.
    stamp = os.stat(path).st_mtime_ns
    reader = functools.partial(hdf5_chunks.read, str(path.absolute()), name, stamp)
    return view(reader, shape, dtype, chunks), attributes, facts


def _dtype(found: h5py.Dataset) -> Any:
    try:
        return found.dtype
    except (TypeError, ValueError) as error:
        return str(error)


def choose(path: pathlib.Path, file: h5py.File, dataset: str | None) -> h5py.Dataset:
    """A dataset by its name; `main`, or the only one, where None.

    Raises:
      InputError: there is none of that name, or only a link to elsewhere.
    """
    wanted = dataset
    names: list[str] = []
    if wanted is None:
        wanted = "main"
        if "main" not in file.keys():  # noqa: SIM118 (`in file` would follow the link)
            names = _datasets(file)
            wanted = names[0] if len(names) == 1 else "main"
    found = _follow(path, file, wanted)
    if isinstance(found, h5py.Dataset):
        return found
    names = names or _datasets(file)
    held = ", ".join(names[:_MOST_NAMES]) or "none"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    raise InputError(f"{path} has no dataset {wanted!r}; it holds {held}{more}")


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)  # which follows no soft or external link
    return [tidy(n) for n in names if file.get(n, getclass=True) is h5py.Dataset]


def _follow(path: pathlib.Path, file: h5py.File, name: str) -> Any:
    """The object of a name, through soft links inside the file; None where there is none."""
    steps = [step for step in name.split("/") if step not in ("", ".")]
    at: Any = file["/"]
    hops = 0
    while steps:
        step = steps.pop(0)
        try:
            link = at.get(step, getlink=True) if isinstance(at, h5py.Group) else None
        except TypeError:
            link = "a link of a kind of its own"
        if link is None:
            return None
        if isinstance(link, h5py.HardLink):
            at = at[step]
            continue
        hops += 1
        if not isinstance(link, h5py.SoftLink) or hops > _MOST_HOPS:
            where = f"{str(at.name).rstrip('/')}/{step}"
            reason = "leads round in a circle"
            if isinstance(link, h5py.ExternalLink):
                reason = f"leads to {link.path} of another file, {link.filename}"
            elif isinstance(link, str):
                reason = f"is {link}"
            raise InputError(
                f"{path} holds {where} as a link that {reason}; name the file and dataset "
                "that it leads to"
            )
        target = str(link.path)
        at = file["/"] if target.startswith("/") else at
        steps = [s for s in target.split("/") if s not in ("", ".")] + steps
    return at


def _layout(
    path: pathlib.Path, found: h5py.Dataset
) -> tuple[tuple[int, ...], np.dtype, tuple[int, ...]]:
    """Shape, type, and the shape of what is to be read at once."""
    source = f"{path}{found.name}"
    if found.shape is None:
        raise InputError(f"{source} is empty: it has no shape; write it again")
    shape, dtype = tuple(map(int, found.shape)), found.dtype
    if math.prod(shape) == 0:
        raise InputError(f"{path} is empty: its shape is {shape}; write it again")
    if found.external:
        names = ", ".join(str(part[0]) for part in found.external)
        raise InputError(
            f"{source} keeps its data in other files ({names}), which is not followed; "
            "copy it into one file with h5repack"
        )
    if found.is_virtual:
        _require_sources(path, found)
    chunks = found.chunks or chunk_of(shape)
    claims.require_possible(source, shape, chunks, dtype.itemsize)
    filters.require_known(source, filters.pipeline(found))
    offset = found.id.get_offset()
    if offset is not None:
        claims.require_bytes(source, os.path.getsize(path), offset + found.nbytes)
    return shape, dtype, chunks


def _require_sources(path: pathlib.Path, found: h5py.Dataset) -> None:
    """Refuses a virtual dataset that HDF5 would fill up where a source is not there."""
    for source in found.virtual_sources():
        where = f"{source.dset_name} of {source.file_name}"
        problem = ""
        try:
            if source.file_name == ".":
                part: Any = _follow(path, found.file, source.dset_name)
                problem = _source_problem(part, source)
            else:
                other = path.absolute().parent / source.file_name
                if not other.is_file():
                    problem = "is not there"
                else:
                    with h5py.File(other, "r") as file:
                        part = _follow(other, file, source.dset_name)
                        problem = _source_problem(part, source)
        except OSError as error:
            problem = f"cannot be read ({error})"
        if problem:
            raise InputError(
                f"{path}{found.name} is a virtual dataset whose source {where} {problem}; "
                "bring it back, or copy all into one dataset"
            )


def _source_problem(part: Any, source: Any) -> str:
    if not isinstance(part, h5py.Dataset):
        return "is not there"
    if part.is_virtual or part.external:
        return "reads from other files itself"
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        # All of it, whatever its shape is: only the number of its values is known.
        wanted = source.vspace.get_select_npoints()
        lacks = f"has {part.size} values where {wanted} are needed"
        return lacks if part.size != wanted else ""
    wanted = tuple(stop + 1 for stop in source.src_space.get_select_bounds()[1])
    if len(wanted) != part.ndim or any(w > s for w, s in zip(wanted, part.shape)):
        return f"has shape {part.shape} where {tuple(wanted)} is needed"
    return ""


def _attributes(
    path: pathlib.Path, found: h5py.Dataset
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All attributes that can be had, and the names of dimension scales."""
    attributes = {}
    for name in found.attrs:
        try:
            held = found.attrs.get_id(name)
            if held.get_space().get_simple_extent_type() == h5py.h5s.NULL:
                continue  # `h5py.Empty`, which says no more than no attribute
            size = held.get_storage_size()
            if size > _MOST_ATTRIBUTE:
                raise ValueError(f"it has {size} bytes")
            attributes[tidy(name)] = _plain(found.attrs[name])
        except Exception as error:  # noqa: BLE001 (of any type that h5py has no array for)
            if axes_lib.is_word(name):
                raise InputError(
                    f"{path} has the attribute {name}, which cannot be read: {error}; mend "
                    "or remove the attribute"
                ) from None
    facts = {}
    if "DIMENSION_LIST" in attributes:  # of netCDF, and so of xarray
        try:
            facts["dimension scales"] = [
                next(iter(d.values())).name if len(d) else None for d in found.dims
            ]
        except (RuntimeError, ValueError, KeyError, TypeError):
            pass  # scales that are gone name nothing
    return attributes, facts


def _plain(value: Any) -> Any:
    """A value of h5py as JSON has it; text that is JSON becomes what it says."""
    value = tidy(value)
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return tidy(json.loads(value))
        except (ValueError, RecursionError):
            return value
    return value
