"""What `--redo` is going to replace, said in one line before anything is removed.

A stage that removes says so again where it does it, which may be hours later.
"""

import pathlib
from collections.abc import Collection, Iterable

from absl import logging

from nisbjax.artifacts import TuneDir, VolumeDir
from nisbjax.modes import segmentation
from nisbjax.modes.outputs import NamedOutputs
from nisbjax.modes.prediction import output_paths
from nisbjax.typing import Config, DecodeValues


def say(
    redo: Collection[str],
    paths: Iterable[pathlib.Path],
    told: Collection[pathlib.Path] = (),
) -> None:
    """Names the files that are there and will be replaced, or says that there are none.

    Args:
      redo: the stages that were asked for; the log says nothing where there are none.
      paths: what these stages would replace.
      told: those among them that the log has named already.
    """
    paths = [path for path in dict.fromkeys(paths) if path not in told]
    if not redo or not paths:
        return
    there = [str(path) for path in paths if path.exists()]
    asked = f"--redo={','.join(redo)}"
    if there:
        logging.info("%s replaces %s", asked, ", ".join(there))
    elif not told:
        logging.info("%s has nothing to replace yet", asked)


def of_prediction(
    config: Config, place: VolumeDir, named: NamedOutputs
) -> list[pathlib.Path]:
    """The files of a volume's prediction, if `--redo` names it."""
    if "predict" not in named.redo:
        return []
    return list(output_paths(config.predict, place, named.prediction))


def of_segmentation(
    config: Config,
    place: VolumeDir,
    named: NamedOutputs,
    parameters: DecodeValues | None = None,
) -> list[pathlib.Path]:
    """A volume's segmentation by some parameters, if `--redo` names it."""
    if "decode" not in named.redo:
        return []
    chosen = segmentation.with_parameters(config, parameters)
    return [segmentation.output_path(chosen, place, named.segmentation)]


def of_study(config: Config, out: TuneDir, named: NamedOutputs) -> list[pathlib.Path]:
    """The file of a study, if `--redo` names it; none on a server, where it is refused."""
    if "tune" not in named.redo:
        return []
    from nisbjax.tune import stage
    from nisbjax.tune.place import file_of

    found = file_of(stage.storage_of(config.tune, out))
    return [] if found is None else [found]
