"""The word on where labels of a part of an image begin in it: `0,0,100`, or `centre`.

Apart from `origin`, which reads files, so that a key is looked at without their libraries.
"""

from nisbjax.errors import InputError
from nisbjax.typing import Triple

CENTRE = "centre"


def parse(text: str) -> Triple | None:
    """Three whole numbers with commas between; None for `centre` and "".

    Raises:
      InputError: anything else.
    """
    if text in ("", CENTRE):
        return None
    try:
        x, y, z = map(int, text.split(","))
    except ValueError:
        raise InputError(
            f"label_offset is {text!r}; wanted x,y,z in voxels of the image, {CENTRE}, or "
            '""'
        ) from None
    return x, y, z
