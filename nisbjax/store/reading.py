"""Values that are on their way from an array, compared before they are believed.

PyTC reads one box after another.
"""

from typing import Any

import numpy as np
import tensorstore as ts

from nisbjax.store import address, chunk_headers, request_errors, verified
from nisbjax.store.views import unreadable

Guard = verified.Guard | chunk_headers.ChunkHeaders


class Reading:
    """A part of an array that is being read.

    Args:
      source: of the array, for messages.
      part: what is read.
      guard: compares the chunk files; None where nobody knows what they should hold.
    """

    def __init__(self, source: str, part: ts.TensorStore, guard: Guard | None):
        self._source = source
        self._part = part
        self._guard = guard
        if guard is not None:
            guard.before(part)
        self._future: Any = part.read()

    def result(self) -> np.ndarray:
        """The values, once they are here and their chunk files are known to be right.

        Raises:
          InputError: a chunk is missing or damaged.
        """
        guard = self._guard
        try:
            values = np.asarray(self._future.result())
        except (OSError, RuntimeError, ValueError, NotImplementedError) as error:
            if guard is not None:  # it knows which chunk, and what to do
                guard.check(self._part)
            if address.is_address(self._source):
                raise request_errors.unreachable(self._source, error) from None
            raise unreadable(error, self._source) from None
        if guard is not None:
            guard.check(self._part)
        return values
