"""What the configuration says of a segmentation: its parameters, its file, what made it.

Which of a key, an artifact of the run or a tuned value counts is decided here, and no key
decides again below.
"""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from nisbjax.artifacts import VolumeDir, file_name
from nisbjax.keys import determines
from nisbjax.keys.checks import optional
from nisbjax.typing import Config, DecodeValues

if TYPE_CHECKING:  # stages are imported when they are asked for
    from nisbjax.decode.plan import Decoding


def with_parameters(config: Config, parameters: DecodeValues | None) -> Config:
    """The configuration with tuned values instead of some keys of `decode`."""
    if not parameters:
        return config
    config = config.copy_and_resolve_references()
    config.decode.update(parameters)
    return config


def path_in(config: Config, place: VolumeDir) -> pathlib.Path:
    """Where a segmentation stands in its volume's folder, named by what it was made with.

    Args:
      config: the configuration, with its parameters; the name says which channels are read,
        all that are predicted or the three shortest, and the mask where it is not QC's.
      place: the folder.

    Raises:
      InputError: no such method.
    """
    from nisbjax.decode.methods import method_of

    method = method_of(config.decode)
    numbers = method.numbers_of(config.decode)
    every = method.reads_all(config.decode)
    channels = {"channels": config.predict.channels} if every else {}
    also = _mask_words(config.decode.affinity_mask)
    if config.decode.min_size:
        also.append(f"min{config.decode.min_size}")
    return place.decoded(config.decode.method, *numbers, **channels, also=also)


def _mask_words(affinity_mask: str) -> list[str]:
    """Nothing where QC makes the mask; else a word on the mask, or on there being none."""
    if affinity_mask == "auto":
        return []
    named = optional(affinity_mask)
    return [f"mask-{file_name(named)}" if named else "nomask"]


def output_path(config: Config, place: VolumeDir, named: str = "") -> pathlib.Path:
    """The file that is named, or where `path_in` says."""
    return pathlib.Path(named) if named else path_in(config, place)


def check_keys(config: Config) -> None:
    """Refuses keys that mean nothing, before there is a prediction to decode.

    Raises:
      InputError: as `decode.methods.check_keys`.
    """
    from nisbjax.decode import methods

    methods.check_keys(config.decode, config.cluster)


def check_output(config: Config) -> None:
    """Refuses a `decode.output` that cannot be written, before there is a prediction.

    Raises:
      InputError: as `decode.stage.check_path`.
    """
    from nisbjax.decode import stage

    named = optional(config.decode.output)
    if named:
        stage.check_path(pathlib.Path(named))


def check(
    config: Config,
    path: pathlib.Path,
    prediction: str | pathlib.Path,
    *,
    redo: bool = False,
) -> None:
    """Refuses what `decode` would, but for the mask, before that is made.

    Args:
      config: the configuration, with its parameters.
      path: of the segmentation.
      prediction: path of the affinities.
      redo: a segmentation that is there is replaced.

    Raises:
      InputError: as `decode.stage.check`.
    """
    from nisbjax.decode import stage

    stage.check(_decoding(config, path, prediction, redo))


def decode(
    config: Config,
    path: pathlib.Path,
    prediction: str | pathlib.Path,
    mask: str | pathlib.Path = "",
    *,
    redo: bool = False,
    told: bool = True,
) -> pathlib.Path:
    """Decodes one prediction under its mask; what is there already is taken.

    Args:
      config, path, prediction, redo: as `check`.
      mask: its path; "" for none.
      told: whether the log says what is read and written.

    Returns:
      `path`, finished.

    Raises:
      InputError: as `decode.stage.run`.
    """
    from nisbjax.decode import stage

    decoding = _decoding(config, path, prediction, redo)
    return stage.run(dataclasses.replace(decoding, told=told), mask)


def _decoding(
    config: Config, path: pathlib.Path, prediction: str | pathlib.Path, redo: bool
) -> "Decoding":
    """What the configuration asks for."""
    from nisbjax.decode.plan import Decoding

    return Decoding(
        config.decode,
        config.cluster,
        path,
        affinities=prediction,
        edge_stored_at=config.data.edge_stored_at,
        determined_by=determines.facts(config, "segmentation"),
        redo=redo,
    )
