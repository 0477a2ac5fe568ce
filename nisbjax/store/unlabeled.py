"""Which label values say that nobody knows what is there.

BANIS pads with -1; training volumes of CREMI, hemibrain and FIB-25 hold uint64(-1) or
uint64(-3), others -2 or -3. PyTC takes all but -1 for objects or for background, depending
on the function. One definition serves loader, erosion, targets and scores here:

    a negative value is unlabeled, whatever the codes;
    `default`: so are the ten largest values of uint32 and of uint64;
    numbers, as in `0,65535`: instead of these ten, these values. A negative number
        means its two's complement in an unsigned type: -1 is the largest value.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Integer

from nisbjax.errors import InputError

DEFAULT = "default"
_TOP = (
    10  # of uint32 and uint64; -1 to -10 of programs that wrote negative numbers there
)
_INT32_MAX = np.iinfo(np.int32).max


def parse_codes(text: str) -> tuple[int, ...] | None:
    """The numbers of `data.unlabeled`; None for the word `default`.

    Raises:
      InputError: anything else but whole numbers of 64 bits, with commas between.
    """
    if text == DEFAULT:
        return None
    parts = text.split(",") if text.strip() not in ("", "none", "None", "null") else []
    try:
        codes = tuple(int(part) for part in parts if len(part) < 30)
    except ValueError:
        codes = ()
    if len(codes) != len(parts) or any(not -(2**63) <= c < 2**64 for c in codes):
        raise InputError(
            f"data.unlabeled is {text[:60]!r}; wanted default, or the values that mean "
            'unlabeled, as in 0,65535; "" for none but negative ones'
        )
    return codes


def is_unlabeled(
    labels: Integer[np.ndarray, "*shape"], codes: str = DEFAULT
) -> Bool[np.ndarray, "*shape"] | None:
    """Where labels are unlabeled; None where that is nowhere.

    Raises:
      InputError: as `parse_codes`.
    """
    chosen = parse_codes(codes)
    bounds = np.iinfo(labels.dtype)
    found: Any = None
    if bounds.min < 0:
        found = labels < 0
    elif chosen is None and labels.dtype.itemsize >= 4:
        found = labels > bounds.max - _TOP
    for code in chosen or ():
        if -(bounds.max + 1) // 2 <= code < 0 and bounds.min == 0:
            code += bounds.max + 1
        if bounds.min <= code <= bounds.max:
            same = labels == labels.dtype.type(code)
            found = same if found is None else found | same
    return found if found is not None and found.any() else None


def to_int32(
    labels: Integer[np.ndarray, "*shape"], codes: str = DEFAULT
) -> Integer[np.ndarray, "*shape"]:
    """Labels as devices take them: 0 = background, > 0 = instance, -1 = unlabeled.

    Args:
      labels: of any integer type.
      codes: `data.unlabeled`.

    Returns:
      An integer type whose values int32 holds. Ids are as they were, or, where one of them
      is larger than int32 holds, numbered again in their order.

    Raises:
      InputError: as `parse_codes`.
    """
    missing = is_unlabeled(labels, codes)
    known = labels if missing is None else labels[~missing]
    if labels.dtype.itemsize < 4 or known.max(initial=0) <= _INT32_MAX:
        if missing is None:
            return labels
        found = labels.astype(np.int32)
        found[missing] = -1
        return found
    ids, places = np.unique(known, return_inverse=True)
    new = np.arange(1, len(ids) + 1, dtype=np.int32)
    new[ids == 0] = 0
    if missing is None:
        return new[places].reshape(labels.shape)
    found = np.full(labels.shape, -1, np.int32)
    found[~missing] = new[places]
    return found
