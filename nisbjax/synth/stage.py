"""Made-up LICONN-like cubes in the layout of the NISB data sets.

`<root>/{train,val,test}/seed<i>/data.zarr/{img,seg}` and `skeleton.pkl`, as on NISB's
server (BANIS README), so that a newcomer runs the whole workflow without a download of
500 GB. Cubes are written box by box, and a box is a function of the seed alone; NISB's
own come from a diffusion model on a cluster.
"""

import contextlib
import dataclasses
import functools
import pathlib
import re
import time
from collections.abc import Sequence

from absl import logging

from nisbjax.errors import InputError
from nisbjax.geometry import box_grid, fit_box
from nisbjax.parallel import cluster
from nisbjax.store import lock
from nisbjax.store.manifest import Manifest, require_same
from nisbjax.synth import cube as cubes
from nisbjax.synth import rendering
from nisbjax.synth.tissue import Tissue
from nisbjax.typing import FloatTriple, Section, Triple

_SMALLEST = 24  # voxels along an axis


def run(
    section: Section,
    root: pathlib.Path,
    *,
    seed: int,
    voxel_size_nm: FloatTriple,
    workers: int = 0,
) -> None:
    """Writes the cubes that the section names.

    Args:
      section: `synth`; keys named as fields of `Tissue` set these.
      root: of the data set.
      seed: of the data set.
      voxel_size_nm: x y z.
      workers: threads, 0 for one for each core.

    Raises:
      InputError: as `write_dataset`, or another kind of tissue.
    """
    if section.kind != "liconn":
        raise InputError(f"synth.kind is {section.kind!r}; wanted liconn")
    names = [field.name for field in dataclasses.fields(Tissue)]
    chosen = {name: section[name] for name in names if name in section}
    write_dataset(
        root,
        tuple(section.shape),
        tuple(section.volumes),
        Tissue(**chosen),
        seed,
        voxel_size_nm,
        workers=workers,
    )


def write_dataset(
    root: pathlib.Path,
    shape: Sequence[int],
    volumes: Sequence[str],
    tissue_kind: Tissue,
    seed: int,
    voxel_size_nm: FloatTriple,
    *,
    box_shape: Triple | None = None,
    workers: int = 0,
) -> list[pathlib.Path]:
    """Writes cubes; those that are complete are left alone, others go on.

    Args:
      root: of the data set; made if missing.
      shape: of every cube, x y z.
      volumes: `train/seed0`, `val/seed5`, ...; the number alone (with `seed`) determines
        a cube, so no two may share it.
      tissue_kind: what the tissue and its image look like.
      seed: of the data set.
      voxel_size_nm: x y z.
      box_shape: voxels that are made at once, a multiple of `cube.CHUNK`; the bytes do not
        depend on it. By default some 60 MB of work for each worker.
      workers: threads, 0 for one for each core.

    Returns:
      The folders of the cubes, in the order of `volumes`.

    Raises:
      InputError: a cube that is too small, a name of another form, a number used twice,
        boxes not aligned to chunks, or a root that holds cubes of other parameters.
    """
    size = _checked_shape(shape)
    numbers = _cube_numbers(volumes)
    if box_shape is None:
        box_shape = fit_box(size, cubes.CHUNK, rendering.BYTES_PER_VOXEL, 60e6)
    if any(
        b % c and b < s for b, c, s in zip(box_shape, cubes.CHUNK, size, strict=True)
    ):
        raise InputError(f"box_shape is {box_shape}; wanted multiples of {cubes.CHUNK}")
    began = time.monotonic()
    folders = [pathlib.Path(root) / name for name in volumes]
    made_of = [
        {
            "shape": size,
            "tissue": dataclasses.asdict(tissue_kind),
            "seed": seed,
            "cube": number,
            "voxel_size_nm": tuple(voxel_size_nm),
        }
        for number in numbers
    ]
    for folder, facts in zip(folders, made_of, strict=True):
        require_same(folder / "data.zarr", facts)
    with contextlib.ExitStack() as held:
        for folder in folders:
            held.enter_context(lock.writing(folder / "data.zarr"))
        manifests = [
            held.enter_context(Manifest(folder / "data.zarr", facts))
            for folder, facts in zip(folders, made_of, strict=True)
        ]
        _write_cubes(manifests, tissue_kind, box_shape, workers)
    logging.info("synth: %d cubes in %.1f s", len(folders), time.monotonic() - began)
    return folders


def _write_cubes(
    manifests: Sequence[Manifest], tissue_kind: Tissue, box_shape: Triple, workers: int
) -> None:
    """Writes what is missing of the cubes that these manifests are of."""
    make = functools.partial(cubes.open_cube, tissue_kind)
    opened = list(
        cluster.map_boxes(
            make,
            list(manifests),
            workers=workers,
            description="synth: centre lines",
        )
    )
    tasks = [
        (cube, box)
        for cube in opened
        for box in box_grid(cube.labels.spatial_shape, box_shape)
    ]
    for _ in cluster.map_boxes(
        lambda task: task[0].write(task[1]),
        tasks,
        workers=workers,
        description="synth: boxes",
    ):
        pass
    for cube in opened:
        cube.finish(box_shape)
        logging.info(
            "synth: wrote %s, %d x %d x %d voxels, %d neurites",
            cube.folder,
            *cube.labels.spatial_shape,
            cube.neurites.count,
        )


def _checked_shape(shape: Sequence[int]) -> Triple:
    if len(shape) != 3 or min(shape) < _SMALLEST:
        raise InputError(
            f"synth.shape is {tuple(shape)}; wanted three sizes of at least {_SMALLEST}"
        )
    x, y, z = map(int, shape)
    return x, y, z


def _cube_numbers(volumes: Sequence[str]) -> list[int]:
    numbers = []
    for name in volumes:
        match = re.fullmatch(r"(?:train|val|test)/seed(\d+)", name)
        if not match:
            raise InputError(
                f"synth.volumes holds {name!r}; wanted train/seed0, val/seed5 and the like"
            )
        numbers.append(int(match[1]))
    if not numbers:
        raise InputError("synth.volumes is empty; wanted train/seed0 and the like")
    if len(set(numbers)) < len(numbers):
        raise InputError(
            f"synth.volumes is {', '.join(volumes)}; wanted a number of its own for each, "
            "as equal numbers are equal tissue"
        )
    return numbers
