"""What the configuration says of a prediction: files, normalisation, edges, who looks on.

QC's statistics are gathered while affinities are written: the two stages meet here, and
know nothing of each other.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from nisbjax.artifacts import VolumeDir
from nisbjax.checkpoint import checkpoint
from nisbjax.errors import InputError
from nisbjax.keys import determines, ranges
from nisbjax.modes import cpu_hours, trained_on
from nisbjax.modes.outputs import OWN, NamedOutputs
from nisbjax.store import exported, finished
from nisbjax.store.volume import open_image
from nisbjax.typing import Config, Section


def predicted(place: VolumeDir, channels: Sequence[int]) -> pathlib.Path:
    """The affinities of a volume's folder that hold these channels, as testing takes them.

    An HDF5 file beside a whole zarr is that, exported; one that another prediction left there
    is not taken for it.

    Raises:
      InputError: none there.
    """
    found = place.find_raw(channels)
    work = found.with_suffix(".zarr")
    if found == work or not finished.is_finished(work):
        return found
    if exported.is_of(found, finished.made_from(work)):
        return found
    logging.warning("%s is of another prediction than %s, which is taken", found, work)
    return work


def predict(
    config: Config,
    found: pathlib.Path,
    image: str,
    place: VolumeDir,
    named: NamedOutputs = OWN,
) -> pathlib.Path:
    """Affinities of an image by a checkpoint; what is there already is taken.

    Args:
      config: the configuration.
      found: the checkpoint.
      image, place, named: as `predict_by`.

    Raises:
      InputError: as `infer.network.load_network` and `infer.stage.run`, or as
        `cpu_hours.require_prediction`.
    """
    from nisbjax.infer.network import load_network

    work, final = output_paths(config.predict, place, named.prediction)
    there = finished.is_finished(work) or (final != work and final.exists())
    if not there or "predict" in named.redo:
        cpu_hours.require_prediction(config, image)
    section = _settled(config.predict, work, final, redo="predict" in named.redo)
    network = load_network(section, config.model.to_dict(), found)
    for line in notes(config, found, image):
        logging.warning(line)
    return predict_by(config, network, image, place, named)


def notes(config: Config, found: pathlib.Path, image: str | pathlib.Path) -> list[str]:
    """Lines on an image of another resolution, or scaled otherwise, than was trained on.

    Args:
      config: keys `data`.
      found: the checkpoint.
      image: that is to be predicted.
    """
    from nisbjax.store.description import named_voxel_size, other_size

    volume = open_image(image)
    said = named_voxel_size(volume)
    used = checkpoint.fact(found, "config")
    lines = trained_on.differences(used, config, volume.source, said)
    other = other_size(volume, config.data.voxel_size_nm)
    return [*lines, other] if other else lines


def predict_by(
    config: Config,
    network: Any,
    image: str | pathlib.Path,
    place: VolumeDir,
    named: NamedOutputs = OWN,
) -> pathlib.Path:
    """Affinities of an image by a network that is loaded.

    Args:
      config: the configuration.
      network: an `infer.network.Network`.
      image: its path.
      place: where they go.
      named: its `prediction` instead.

    Raises:
      InputError: as `infer.stage.run`.
    """
    from nisbjax.infer import stage
    from nisbjax.qc import gathering

    section, target, said = _asked(config, place, named)
    return stage.run(
        section,
        network,
        image,
        target,
        **said,
        make_observer=functools.partial(
            gathering.begin, config.qc, place.plane_statistics
        ),
    )


def check(
    config: Config, network: Any, image: str | pathlib.Path, place: VolumeDir
) -> None:
    """Refuses what `predict_by` would, and writes nothing.

    Args:
      config, network, image, place: as `predict_by`.

    Raises:
      InputError: as `infer.stage.run`.
    """
    from nisbjax.infer import stage

    section, target, said = _asked(config, place, NamedOutputs.of(config))
    stage.check(section, network, image, target, **said)


def _asked(
    config: Config, place: VolumeDir, named: NamedOutputs
) -> tuple[Section, Any, dict[str, Any]]:
    """What the stage takes: `predict`, where affinities go, and what is said of them."""
    from nisbjax.data.normalization import Normalization
    from nisbjax.infer.affinity_attributes import EdgeGeometry
    from nisbjax.infer.stage import PredictionFiles

    redo = "predict" in named.redo
    work, final = output_paths(config.predict, place, named.prediction)
    section = _settled(config.predict, work, final, redo=redo)
    determined_by = determines.facts(config, "prediction")
    determined_by["predict.precision"] = section.precision
    said = {
        "normalization": Normalization.of(config.data, place.grey_values),
        "edges": EdgeGeometry(
            tuple((int(x), int(y), int(z)) for x, y, z in config.data.offsets),
            config.data.edge_stored_at,
            tuple(config.data.voxel_size_nm),
        ),
        "determined_by": determined_by,
    }
    return section, PredictionFiles(work, final, redo), said


def _settled(
    section: Section, work: pathlib.Path, final: pathlib.Path, *, redo: bool
) -> Section:
    """`predict` with the word that `precision = auto` becomes.

    That of a prediction that is whole, so that what a GPU predicted is decoded on a node
    without one; else the one that this device is given. What was begun with another word is
    then refused, as it is with any other key.
    """
    from nisbjax.infer.compute_dtype import settled

    word = settled(section.precision, section.activation, section.scale)
    if section.precision == "auto" and not redo:
        made_from = finished.made_from(work) or exported.made_from(final)
        word = made_from.get("predict.precision", word)
    section = section.copy_and_resolve_references()
    section.precision = word
    return section


def output_paths(
    section: Section, place: VolumeDir, named: str = ""
) -> tuple[pathlib.Path, pathlib.Path]:
    """The zarr that a prediction is worked in, and the file that is asked for.

    Args:
      section: `predict`.
      place: where they go.
      named: the file that is asked for instead; "" for none.

    Raises:
      InputError: a name of another format.
    """
    if not named:
        work = place.raw("zarr", section.channels)
        return work, place.raw(section.format, section.channels)
    path = pathlib.Path(named)
    endings = ranges.OUTPUT_ENDINGS["predict.output"]
    if path.suffix not in endings:
        raise InputError(
            f"predict.output is {named!r}; wanted a name that ends in "
            f"{' or '.join(endings)}"
        )
    return path.with_suffix(".zarr"), path
