"""An array as its reader wants its axes: one channel or time point of it, in another order.

Views of TensorStore, so nothing is copied. PyTC and BANIS read arrays as they lie.
"""

from collections.abc import Mapping
from typing import Any

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import axes as axes_lib

Attributes = dict[str, Any]
_WHAT = {"c": "channels", "t": "time points"}


def chosen(
    source: str,
    store: ts.TensorStore,
    named: str,
    attributes: Attributes,
    choices: Mapping[str, int],
) -> tuple[ts.TensorStore, str, Attributes]:
    """One channel or time point of an array.

    Args:
      source: path, for messages.
      store: the array.
      named: its axes; "" where nothing names them.
      attributes: of the array.
      choices: axes and numbers, of `axes.choices_of`.

    Returns:
      The part, its axes and its attributes.

    Raises:
      InputError: it has no such axis, or not so many.
    """
    for axis, number in choices.items():
        what = _WHAT[axis]
        if axis not in named:
            axes = " ".join(named) or "none that a word names"
            raise InputError(
                f"{source} has shape {tuple(store.shape)} and the axes {axes}, and "
                f"{axis}={number} was said of it; leave that out, or say the order of its "
                "axes behind the path too, as #czyx#c=0"
            )
        at = named.index(axis)
        count = store.shape[at]
        if number >= count:
            raise InputError(
                f"{source} has {count} {what}, and {axis}={number} was said of it; wanted "
                f"0 to {count - 1}"
            )
        store = store[ts.d[at][number]]
        named = named[:at] + named[at + 1 :]
        # Offsets are of all channels; another array's words on its axes are wrong here.
        left_out = ("offsets",) if axis == "c" else ()
        attributes = with_order(
            {k: v for k, v in attributes.items() if k not in left_out}, named
        )
    return store, named, attributes


def in_order(
    source: str,
    store: ts.TensorStore,
    named: str,
    attributes: Attributes,
    wanted: str,
) -> tuple[ts.TensorStore, Attributes]:
    """The whole array with its axes in another order; those of length 1 may be left out.

    Args:
      source: path, for messages.
      store: the array.
      named: its axes.
      attributes: of the array.
      wanted: axes.

    Raises:
      InputError: as `axes.order`.
    """
    order = axes_lib.order(source, tuple(store.shape), named, wanted)
    surplus = tuple(i for i in range(store.rank) if i not in order)
    if surplus:
        store = store[ts.d[surplus][(0,) * len(surplus)]]
        kept = sorted(order)
        order = [kept.index(i) for i in order]
    return store[ts.d[tuple(order)].transpose[:]], with_order(attributes, wanted)


def with_order(attributes: Attributes, letters: str) -> Attributes:
    """Attributes of a view, which must not contradict itself."""
    kept = {k: v for k, v in attributes.items() if not axes_lib.is_word(k)}
    return {**kept, "axes": list(letters)}
