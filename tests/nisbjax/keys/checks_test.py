"""What a key may be, and how a value is shown that is not that."""

import pytest

from nisbjax.errors import InputError
from nisbjax.keys import checks


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("short", "'short'"),
        ([1, 2], "(1, 2)"),
        # repr has 1 + 40 + 9 + 40 + 9 + 1 = 100 characters: 28 of each end stay.
        ("a" * 40 + "/of/some/" + "b" * 40 + "/raw.zarr", f"'{'a' * 27}...{'b' * 18}/raw.zarr'"),
    ],
)  # fmt: skip
def test_a_long_value_keeps_both_ends(value, text):
    assert checks.shown(value) == text


def test_values_that_have_no_text_of_their_own():
    value = []
    value.append(value)
    assert "..." in checks.shown(value)
    assert checks.shown(10**5000) == "a number of thousands of digits"


def test_a_refusal_names_key_value_and_wish():
    with pytest.raises(InputError, match="train.steps is -1; wanted a whole number"):
        checks.require("train.steps", -1, checks.whole(1))
