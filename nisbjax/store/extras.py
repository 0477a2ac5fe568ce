"""Libraries that are installed by an extra's name: imported when a file first needs them.

PyTC imports nibabel for every user; here a file of such a format names the command.
"""

import importlib
from typing import Any

from nisbjax.errors import InputError


def imported(library: str, extra: str, what: Any) -> Any:
    """A module, imported now.

    Args:
      library: its name.
      extra: of this package, that installs it.
      what: needs it, for the message.

    Raises:
      InputError: it is not installed, saying how to.
    """
    try:
        return importlib.import_module(library)
    except ImportError:
        raise InputError(
            f"{what} needs {library}; pip install 'nisbjax[{extra}]'"
        ) from None
