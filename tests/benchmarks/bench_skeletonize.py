"""Skeletons of a made cube: whole by kimimaro, and by the stage in boxes; CPU-seconds."""

import pathlib
import tempfile
import time

import kimimaro

from nisbjax.config import base_config
from nisbjax.keys import determines
from nisbjax.skeletonize import stage
from nisbjax.skeletonize.box_skeletons import Teasar
from nisbjax.store.volume import open_labels
from nisbjax.synth import stage as synth
from nisbjax.synth.tissue import Tissue

SHAPE, VOXEL = (256, 256, 192), (9.0, 9.0, 12.0)
BOXES = ((256, 256, 256), (128, 128, 128), (64, 64, 64))


def main() -> None:
    """Prints a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        synth.write_dataset(root, SHAPE, ("test/seed6",), Tissue(), 1, VOXEL)
        path = root / "test" / "seed6" / "data.zarr" / "seg"
        labels = open_labels(path).read()
        began = time.process_time()
        found = kimimaro.skeletonize(
            labels,
            teasar_params=Teasar(1.5, 300.0).parameters(),
            anisotropy=VOXEL,
            dust_threshold=1000,
            progress=False,
        )
        length = sum(each.cable_length() for each in found.values()) / 1000
        say("kimimaro, whole", began, labels.size, length, len(found))
        for box_shape in BOXES:
            config = base_config()
            config.data.voxel_size_nm = VOXEL
            config.skeletonize.box_shape = box_shape
            began = time.process_time()
            facts = stage.run(
                stage.Skeletonizing(
                    config.skeletonize,
                    str(path),
                    root / f"{box_shape[0]}.pkl",
                    "",
                    VOXEL,
                    config.data.unlabeled,
                    determines.facts(config, "skeletons"),
                    config.cluster,
                )
            )
            name = f"boxes of {box_shape[0]}"
            say(name, began, labels.size, facts["length_um"], facts["labels"])


def say(name: str, began: float, voxels: int, length: float, labels: int) -> None:
    """One line."""
    seconds = time.process_time() - began
    print(
        f"{name:>16}: {seconds:5.1f} CPU-s, {voxels / 1e6 / seconds:.2f} Mvoxel/CPU-s, "
        f"{labels} labels, {length:.1f} um"
    )


if __name__ == "__main__":
    main()
