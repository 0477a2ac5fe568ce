"""What is unlabeled, by type and by the codes that are named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nisbjax.errors import InputError
from nisbjax.store.unlabeled import is_unlabeled, parse_codes, to_int32

TYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8")


@pytest.mark.parametrize(
    ("dtype", "codes", "values", "expected"),
    [
        ("i8", "default", [-(2**40), -3, -1, 0, 7], [-1, -1, -1, 0, 7]),
        ("i1", "", [-128, -1, 0, 127], [-1, -1, 0, 127]),
        ("u4", "default", [2**32 - 1, 2**32 - 10, 0, 7], [-1, -1, 0, 7]),
        ("u8", "default", [2**64 - 1, 2**64 - 10, 0, 7], [-1, -1, 0, 7]),
        # The eleventh largest is an id; int32 does not hold it, so ids are numbered again.
        ("u4", "default", [2**32 - 11, 2**32 - 1, 0, 7], [3, -1, 0, 2]),
        ("u8", "", [2**64 - 1, 2**64 - 2, 0, 7], [4, 3, 0, 2]),
        ("u2", "default", [65535, 0, 7], [65535, 0, 7]),
        ("u2", "0, 65535", [65535, 0, 7], [-1, -1, 7]),
        ("u2", "-1", [65535, 65534, 0], [-1, 65534, 0]),
        ("u8", "-3,9", [2**64 - 3, 9, 5], [-1, -1, 5]),
        ("i4", "9", [9, -5, 2], [-1, -1, 2]),
        ("u1", "300,-200", [255, 0, 44, 56], [255, 0, 44, 56]),
        ("i8", "default", [2**40, -1, 0, 5], [3, -1, 0, 2]),
    ],
)
def test_by_hand(dtype, codes, values, expected):
    found = to_int32(np.array(values, dtype).reshape(-1, 1, 1), codes)
    assert found.ravel().tolist() == expected


@given(
    st.sampled_from(TYPES).flatmap(lambda t: arrays(t, (6, 2))),
    st.sampled_from(["default", "", "0,65535", "-1,-7"]),
)
def test_ids_stay_distinct_and_int32_holds_them(labels, codes):
    found = to_int32(labels, codes)
    assert found.min() >= -1 and found.max() <= 2**31 - 1
    missing = is_unlabeled(labels, codes)
    missing = np.zeros(labels.shape, bool) if missing is None else missing
    assert ((found == -1) == missing).all() and missing[labels < 0].all()
    assert ((found == 0) == (~missing & (labels == 0))).all()
    pairs = set(zip(labels[~missing].tolist(), found[~missing].tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize(
    "text",
    ["no", "1;2", "1.5", "0,", ",", str(2**64), "-" + str(2**63 + 1), "9" * 5000],
)
def test_other_words_are_refused(text):
    with pytest.raises(
        InputError, match="data.unlabeled is .*; wanted default, or the"
    ):
        parse_codes(text)
