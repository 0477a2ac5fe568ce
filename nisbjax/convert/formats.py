"""What can be written: formats by the name of the output, and what each of them can hold.

Neither PyTC nor BANIS writes anything but HDF5 and zarr v2.
"""

import dataclasses

import numpy as np

from nisbjax.errors import InputError, require_choice
from nisbjax.store.places import Place

_INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_FLOATS = ("float32", "float64")


@dataclasses.dataclass(frozen=True)
class Format:
    """One format of an output.

    Attributes:
      name: as `convert.format` has it.
      title: in messages.
      types: of voxels that it can hold.
      compressions: that it can have; the first is the usual one.
      order: of axes, with and without channels; None where any order is written.
      is_file: one file, written whole, not a folder of chunks.
      has_scales: whether a pyramid can be written.
      has_shards: whether chunks can lie together in one file.
      extra: library that it needs, and the name by which it is installed; "" for none.
    """

    name: str
    title: str
    types: tuple[str, ...]
    compressions: tuple[str, ...]
    order: tuple[str, str] | None = None
    is_file: bool = False
    has_scales: bool = False
    has_shards: bool = False
    extra: tuple[str, str] = ("", "")

    @property
    def is_ome(self) -> bool:
        """A group of OME-Zarr."""
        return self.name.startswith("ome-")

    @property
    def zarr_version(self) -> int:
        """Of its arrays; 0 where they are none of zarr."""
        return {"zarr2": 2, "ome-zarr-0.4": 2, "zarr3": 3, "ome-zarr-0.5": 3}.get(
            self.name, 0
        )


_ZARR = ("bool", *_INTEGERS, "float16", *_FLOATS)
_CODECS = ("blosc", "gzip", "zstd", "none")
_SPECIFIED = ("czyx", "zyx")  # OME-Zarr's order of axes
FORMATS = {
    found.name: found
    for found in (
        Format("zarr2", "zarr v2", _ZARR, _CODECS),
        Format("zarr3", "zarr v3", _ZARR, _CODECS, has_shards=True),
        Format(
            "ome-zarr-0.4",
            "OME-Zarr 0.4",
            _ZARR,
            _CODECS,
            order=_SPECIFIED,
            has_scales=True,
        ),
        Format(
            "ome-zarr-0.5",
            "OME-Zarr 0.5",
            _ZARR,
            _CODECS,
            order=_SPECIFIED,
            has_scales=True,
            has_shards=True,
        ),
        Format(
            "precomputed",
            "precomputed",
            (*_INTEGERS[:7], "float32"),
            ("none", "compressed_segmentation"),
            order=("xyzc", "xyz"),
            has_scales=True,
        ),
        Format(
            "n5",
            "N5",
            (*_INTEGERS, *_FLOATS),
            ("gzip", "blosc", "none"),
            order=("xyzc", "xyz"),
            has_scales=True,
        ),
        Format("hdf5", "HDF5", _ZARR[1:], ("gzip",), is_file=True),
        Format(
            "tiff",
            "TIFF",
            _ZARR[1:],
            ("zlib", "none"),
            order=("czyx", "zyx"),
            is_file=True,
        ),
        *(
            Format(
                name,
                "NIfTI",
                (*_INTEGERS, *_FLOATS),
                (compression,),
                order=("xyzc", "xyz"),
                is_file=True,
                extra=("nibabel", "nifti"),
            )
            for name, compression in (("nifti", "none"), ("nifti-gz", "gzip"))
        ),
        Format(
            "blosc2",
            "Blosc2",
            _ZARR,
            ("zstd", "none"),
            is_file=True,
            extra=("blosc2", "blosc2"),
        ),
    )
}
_BY_SUFFIX = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".n5": "n5",
    ".nii": "nifti",
    ".b2nd": "blosc2",
}


def format_of(path: Place, named: str, scales: int) -> Format:
    """The format that is named, or that of an output's name.

    Args:
      path: of the output.
      named: one of `FORMATS`, or `auto`: by the suffix, where `.zarr` is OME-Zarr 0.4 if it
        has several scales or ends in `.ome.zarr`, else zarr v2, and what lies in an `.n5` is N5.
      scales: that will be written besides the finest.

    Raises:
      InputError: a suffix of none of them, or that of another kind than is named.
    """
    require_choice("convert.format", named, ("auto", *FORMATS))
    by_name = _by_name(path, scales)
    if named == "auto":
        if by_name:
            return FORMATS[by_name]
        raise InputError(
            f"{path} does not say its format; end it in .zarr, .n5, .h5, .tif, .nii.gz or .b2nd, or name one "
            "with --config.convert.format=precomputed"
        )
    found = FORMATS[named]
    if by_name and FORMATS[by_name].is_file != found.is_file:
        raise InputError(
            f"{path} has the name of {FORMATS[by_name].title} and convert.format is {named}; "
            "name another output or format"
        )
    return found


def _by_name(path: Place, scales: int) -> str:
    suffix = path.suffix.lower()
    if path.name.lower().endswith(".nii.gz"):
        return "nifti-gz"
    if suffix == ".zarr":
        is_ome = scales or path.name.lower().endswith(".ome.zarr")
        return "ome-zarr-0.4" if is_ome else "zarr2"
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    inside = any(parent.suffix.lower() == ".n5" for parent in path.parents)
    return "n5" if inside else ""


def require_type(found: Format, source: str, dtype: np.dtype) -> None:
    """Refuses voxels that a format has no type for.

    Raises:
      InputError: with those that it has.
    """
    if dtype.name not in found.types:
        raise InputError(
            f"{source} holds {dtype.name}, which {found.title} has no type for; wanted "
            f"{', '.join(found.types)}; convert.dtype names another type, or convert.format "
            "another format"
        )
