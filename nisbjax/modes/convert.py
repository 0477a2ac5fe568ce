"""Mode convert: one volume into another format, by two paths.

`--mode=convert em.tif em.zarr --config.convert.downsample=4`. Every key has a default, so no
configuration needs to be named.
"""

from collections.abc import Sequence

from nisbjax.errors import InputError
from nisbjax.keys import ranges
from nisbjax.modes import remote
from nisbjax.store.places import Place
from nisbjax.typing import Config


def run(paths: Sequence[str], config: Config, workdir: str = "") -> Place:
    """Converts a volume.

    Args:
      paths: of the input and the output.
      config: keys `convert` and `remote`.
      workdir: the folder for what lies here of an output at an address while it is
        made; "" for this one.

    Returns:
      The path or address of the output.

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
    written = stage.run(config.convert, paths[0], paths[1], workdir or ".")
    remote.say_fetched()
    return written
