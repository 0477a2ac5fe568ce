"""What a misspelt key may have meant."""

import pytest

from nisbjax.keys import nearest


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("decode.thresold", "decode.threshold"),
        ("thresold", "decode.threshold"),
        ("decode.patch", "data.patch"),  # of another section
        ("data.root", "data.root"),
        ("tran.steps", "train.steps"),
    ],
)
def test_the_likest_key_comes_first(name, first):
    assert nearest.keys(name)[0] == first


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("decode", "decode is a section of the configuration; --help=decode lists"),
        ("data.test", "data.test is a section of the configuration; --help=data lists"),
        ("decode.xyzzy", "decode.xyzzy is no key of the configuration; --help=decode"),
        ("xyzzy", "xyzzy is no key of the configuration; --help lists the sections"),
        ("seeed", "seeed is no key of the configuration; did you mean seed"),
    ],
)
def test_one_line_on_a_key_that_there_is_none_of(name, said):
    assert nearest.refusal(name).startswith(said)
