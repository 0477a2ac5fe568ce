"""A section for a terminal, and the page of all keys."""

import pathlib

import pytest

from nisbjax.errors import InputError
from nisbjax.keys import page
from nisbjax.keys.ranges import RANGES

ROOT = pathlib.Path(__file__).parents[3]


def test_the_page_is_up_to_date():
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == page.page(), "run make docs"


def test_a_section_says_default_meaning_and_range():
    said = page.section_text("decode")
    assert (
        "--config.decode.threshold=0.75\n    Affinities above it join voxels.\n"
        "    A number in [0, 1].\n" in said
    )
    assert "--config.decode.joins=()\n" in said
    assert "data." not in said.replace("decode.", "")


def test_every_key_is_in_one_section():
    keys = [key for section in page.sections() for key in page.keys_of(section)]
    assert sorted(keys) == sorted(RANGES)


def test_a_section_that_there_is_none_of():
    with pytest.raises(InputError, match="no section 'decod'; wanted one of data, aug"):
        page.section_text("decod")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", '""'),
        ("auto", "auto"),
        (0.75, "0.75"),
        (True, "True"),
        ((64, 32, 16), "(64,32,16)"),
        ((0.5,), "(0.5,)"),
        ((), "()"),
        ([["data", -1]], '(("data",-1),)'),
    ],
)
def test_a_value_as_a_flag_takes_it(value, said):
    assert page.shown(value) == said
