"""Mode convert: one volume into another format, by two paths.

`--mode=convert em.tif em.zarr --config.convert.downsample=4`. Every key has a default, so no
configuration needs to be named.
"""

import pathlib
from collections.abc import Sequence

from nisbjax.errors import InputError
from nisbjax.keys import ranges
from nisbjax.modes import remote
from nisbjax.typing import Config


def run(paths: Sequence[str], config: Config) -> pathlib.Path:
    """Converts a volume.

    Args:
      paths: of the input and the output.
      config: keys `convert`.

    Returns:
      The path of the output.

    Raises:
      InputError: not two paths, or as `convert.stage.run`.
    """
    from nisbjax.convert import stage

    if len(paths) != 2:
        raise InputError(
            f"--mode=convert names {len(paths)} paths; wanted two, the input and the output"
        )
    ranges.check(config)
    remote.settle(config)
    written = stage.run(config.convert, paths[0], paths[1])
    remote.say_fetched()
    return written
