"""One made-up cube that is being written: its arrays, its boxes, its skeletons.

`data.zarr/{img,seg}` and `skeleton.pkl`, as in a cube of NISB. Boxes are written in any
order and by any thread; a manifest beside the arrays says which are done, so that a cube
that was interrupted goes on, where NISB's come whole.
"""

import dataclasses
import pathlib
import pickle

import numpy as np

from nisbjax.geometry import Box
from nisbjax.store import files, stored, volume
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume
from nisbjax.synth import rendering, tissue, tracing
from nisbjax.synth.tissue import Neurites, Tissue
from nisbjax.typing import FloatTriple, Triple

CHUNK: Triple = (64, 64, 64)
_SKELETON = "skeleton.pkl"


@dataclasses.dataclass(frozen=True, eq=False)
class Cube:
    """A cube on disk, and the tissue that its boxes are rendered from.

    Attributes:
      folder: of the cube.
      neurites: all centre lines.
      tissue: what they look like.
      seed: of the cube.
      voxel_size_nm: x y z.
      image: [x y z c].
      labels: [x y z].
      manifest: which boxes are done.
    """

    folder: pathlib.Path
    neurites: Neurites
    tissue: Tissue
    seed: int
    voxel_size_nm: FloatTriple
    image: Volume
    labels: Volume
    manifest: Manifest

    def write(self, box: Box) -> None:
        """Renders and writes a box that is not done; durable when this returns."""
        if self.manifest.finished or self.manifest.done(str(box)):
            return
        image, labels = rendering.render_box(
            self.neurites,
            self.tissue,
            box,
            self.labels.spatial_shape,
            self.voxel_size_nm,
            self.seed,
        )
        labels = labels.astype(self.labels.dtype)
        self.image.write(box, image[..., None])
        self.labels.write(box, labels)
        known = {}
        for array in (self.image, self.labels):
            known |= array.chunk_facts(box, self.manifest.artifact)
        self.manifest.record(str(box), known)

    def finish(self, box_shape: Triple) -> None:
        """Writes the skeletons, which need the labels to be complete."""
        if self.manifest.finished:
            return
        nodes = self.manifest.noted(_SKELETON)
        if not self.manifest.done(_SKELETON) or nodes is None:
            graph = tracing.skeleton_graph(
                self.neurites,
                self.tissue.labelled(self.labels.spatial_shape),
                self.labels,
                self.voxel_size_nm,
                box_shape,
            )
            with files.replacing(self.folder / _SKELETON) as temporary:
                temporary.write_bytes(pickle.dumps(graph, protocol=4))
            nodes = {"nodes": len(graph)}
            self.manifest.note(_SKELETON, **nodes)
            path = self.folder / _SKELETON
            self.manifest.record(_SKELETON, {f"../{_SKELETON}": stored.of_file(path)})
        self.manifest.finish(neurites=self.neurites.count, nodes=nodes["nodes"])


def open_cube(tissue_kind: Tissue, manifest: Manifest) -> Cube:
    """A new cube, or one that goes on; boxes that were damaged since are made again.

    Args:
      tissue_kind: what the tissue and its image look like.
      manifest: of `data.zarr` in the cube's folder; its fingerprint names shape, voxel
        size, seed and the cube's number.

    Raises:
      InputError: an array of another shape or type stands there.
    """
    folder, made_of = manifest.artifact.parent, manifest.fingerprint
    shape, voxel_size_nm = tuple(made_of["shape"]), tuple(made_of["voxel_size_nm"])
    manifest.verify()
    cube_seed = rendering.cube_seed(made_of["seed"], made_of["cube"])
    neurites = tissue.grow_neurites(shape, voxel_size_nm, tissue_kind, cube_seed)
    attributes = {"voxel_size_nm": list(voxel_size_nm), "made_of": made_of}
    image = volume.create_zarr(
        folder / "data.zarr" / "img",
        shape=(*shape, 1),
        dtype=np.uint8,
        chunks=(*CHUNK, 1),
        axes="xyzc",
        attributes=attributes,
    )
    labels = volume.create_zarr(
        folder / "data.zarr" / "seg",
        shape=shape,
        dtype=np.uint16 if neurites.count < 1 << 16 else np.uint32,
        chunks=CHUNK,
        axes="xyz",
        attributes=attributes,
    )
    files.write_json(folder / "data.zarr" / ".zgroup", {"zarr_format": 2})
    return Cube(
        folder,
        neurites,
        tissue_kind,
        cube_seed,
        voxel_size_nm,
        image,
        labels,
        manifest,
    )
