"""The folder that a mode works in, where the command line names none.

BANIS and PyTC write into a folder of the configuration; here every training has its own,
and the modes after it take the newest of that configuration, or the one that holds what
they are given.
"""

import pathlib

from nisbjax import artifacts
from nisbjax.artifacts import Run
from nisbjax.keys.checks import optional
from nisbjax.store.address import local_path
from nisbjax.typing import Config

OUTPUTS = pathlib.Path("outputs")
_START_A_RUN = ("train", "synth", "demo")
# The key by which a mode works on a file that any program wrote.
_FOREIGN_INPUT = {
    "qc": "qc.input",
    "mask": "mask.report",
    "decode": "decode.input",
    "evaluate": "evaluate.segmentation",
}


def find_run(
    mode: str, config: Config, workdir: str, checkpoint_path: str, reset: bool = False
) -> Run:
    """The folder to work in: as named, a new one, the input's, the checkpoint's, the newest.

    Training on from a checkpoint goes on in its run, unless something is reset.

    Raises:
      InputError: the mode needs a run and there is none.
    """
    if workdir:
        return Run(local_path(workdir))
    # Neither begins a run nor needs one; skeletons are of data, whatever is trained on them.
    if mode == "skeletonize" or (mode == "check" and not checkpoint_path):
        return Run(OUTPUTS / config.name)
    if mode == "import":  # its file may well lie in another program's run
        return artifacts.new_import(OUTPUTS, config.name)
    if mode in _START_A_RUN and (reset or not checkpoint_path):
        return artifacts.new_run(OUTPUTS, config.name)
    if mode in _FOREIGN_INPUT:
        section, key = _FOREIGN_INPUT[mode].split(".")
        named = optional(config[section][key])
        if named:
            return Run(artifacts.folder_of(named))
    if checkpoint_path:
        path = pathlib.Path(checkpoint_path).absolute()
        for folder in (path, *path.parents):
            if (folder / "checkpoints").is_dir():
                return Run(folder)
        if mode in _START_A_RUN:
            return artifacts.new_run(OUTPUTS, config.name)
    return artifacts.newest_run(OUTPUTS, config.name)
