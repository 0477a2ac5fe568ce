"""The affinity mask: from a report to `affinity_mask.h5`.

The file is PyTC's (`build_affinity_mask`: dataset `main`, uint8, x y z, 1 = keep, the
specification in its attributes, the source image's absolute path among them), written chunk
by chunk: one that is kept whole is compressed once and its bytes are used again. Besides it
holds the image's path from the mask's folder, and its fingerprint: where both have moved,
PyTC finds no image, and this project does.
"""

import json
import math
import os
import pathlib
import time
import zlib
from typing import Any

import h5py
import numpy as np
from absl import logging

from nisbjax.console import quantities
from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid
from nisbjax.mask import MaskSpec
from nisbjax.parallel.cluster import map_boxes
from nisbjax.qc import front_matter
from nisbjax.store import address, files, hdf5_output
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.formats import is_there
from nisbjax.store.lock import writing
from nisbjax.store.regions import part_of
from nisbjax.store.volume import Volume, open_image

_CHUNK = 256
_GZIP = 4
_WORKERS = 8  # of some 80 MB each


def from_report(
    path: str | os.PathLike, *, image_path: str = "", out: str = ""
) -> pathlib.Path:
    """Builds the mask that a report describes.

    Args:
      path: of the report.
      image_path: of the source image, instead of the one that the report names.
      out: path of the mask, instead of the one that the report names.

    Returns:
      The path of the mask.

    Raises:
      InputError: the report, its image or its cuts cannot be used.
    """
    started = time.monotonic()
    front = front_matter.read(path)
    image_path = image_path or _beside(path, front.img)
    if not image_path:
        raise InputError(f"{path} names no image; name it with --config.qc.image=PATH")
    out = out or _beside(path, front.out)
    image = open_image(image_path)
    part = front.region
    if part is not None:
        image = part_of(image, *part)
    box, volume = part or (Box.whole(image.spatial_shape), None)
    spec = MaskSpec(
        box.shape,
        front.low_z,
        front.high_z,
        front.border_width,
        front.bg_thresh,
        box.start,
        volume,
    )
    kept = build(image, spec, out, image_path)
    logging.info(
        "masked %.1f %% in %s, as %s says\nwrote %s",
        100 * (1 - kept / math.prod(spec.shape)),
        quantities.duration(time.monotonic() - started),
        pathlib.Path(path).name,
        out,
    )
    return pathlib.Path(out)


def build(
    image: Volume, spec: MaskSpec, path: str | os.PathLike, image_path: str = ""
) -> int:
    """Writes the mask of a specification; the file appears when it is complete.

    Args:
      image: the source image, or the part that the mask is of, [x y z c]; read only where
        the border ring is.
      spec: what is kept.
      path: of the new HDF5 file.
      image_path: of the whole image, where the mask is of a part.

    Returns:
      Voxels kept.

    Raises:
      InputError: the specification is of another shape, or the path is not local, not
        that of an HDF5 file, or that of something else than a mask.
    """
    if image.spatial_shape != spec.shape:
        raise InputError(
            f"image {image.source} {image.spatial_shape} does not match the mask's "
            f"{spec.shape}; name the image that was predicted"
        )
    path = require_replaceable(path)
    x, y, z = (min(_CHUNK, size) for size in spec.shape)
    chunk = x, y, z
    ones = zlib.compress(np.ones(chunk, np.uint8).tobytes(), _GZIP)

    def compressed(box: Box) -> tuple[int, bytes]:
        pixels = image.read_channel(box, 0) if spec.touches_ring(box) else None
        mask = spec.mask_of(box, pixels)
        count = int(mask.sum())
        if count == math.prod(chunk):
            return count, ones
        padded = np.zeros(chunk, np.uint8)
        padded[tuple(map(slice, mask.shape))] = mask
        return count, zlib.compress(padded.tobytes(), _GZIP) if count else b""

    boxes = box_grid(spec.shape, chunk)
    workers = min(_WORKERS, len(os.sched_getaffinity(0)))
    kept = 0
    with writing(path), hdf5_output.creating(path) as file:
        main = file.create_dataset(
            "main",
            shape=spec.shape,
            dtype=np.uint8,
            chunks=chunk,
            compression="gzip",
            compression_opts=_GZIP,
        )
        main.attrs.update(_attributes(image_path or image.source, spec, path))
        results = map_boxes(compressed, boxes, workers=workers, description="mask")
        for box, (count, data) in zip(boxes, results, strict=True):
            kept += count
            if data:  # a chunk that is not there reads as 0
                main.id.write_direct_chunk(box.start, data)
                file.check()
    return kept


def require_replaceable(path: str | os.PathLike) -> pathlib.Path:
    """The mask's path, unless something else would be lost there.

    Raises:
      InputError: not a local path, not that of an HDF5 file, or that of something else.
    """
    path = address.local_path(str(path)).absolute()
    if path.suffix not in (".h5", ".hdf5"):
        raise InputError(
            f"the mask was to go to {path}; wanted a name that ends in .h5"
        )
    files.require_file(path)
    if path.exists():
        try:
            with h5py.File(path, "r") as file:
                known = "low_z" in file["main"].attrs
        except (OSError, KeyError):
            known = False
        if not known:
            raise InputError(
                f"{path} is there and is no affinity mask; remove it, or name another file as the mask's "
                "out, or with --config.mask.output"
            )
    return path


def _attributes(image: str, spec: MaskSpec, path: pathlib.Path) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "bg_thresh": spec.bg_thresh,
        "border_width": spec.border_width,
        "low_z": spec.low_z,
        "high_z": spec.high_z,
        "axis_order": "XYZ",
        "source_image": "",
    }
    if spec.volume is not None:
        attributes["box"] = str(Box.whole(spec.shape).shift(spec.start))
        attributes["volume_shape"] = json.dumps(spec.volume)
    if is_there(image):
        source = address.absolute(image)
        attributes["source_image"] = source
        if not address.is_address(source):
            attributes["source_image_relative"] = os.path.relpath(source, path.parent)
        attributes["source_fingerprint"] = fingerprint(image)
    return attributes


def _beside(file: str | os.PathLike, path: str) -> str:
    """A path as written in a file: relative ones count from the file's folder."""
    if not path or address.is_address(path) or os.path.isabs(path):
        return path
    beside = os.path.join(os.path.dirname(os.path.abspath(file)), path)
    return beside if is_there(beside) or not is_there(path) else path
