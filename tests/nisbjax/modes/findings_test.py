"""Everything that is wrong, each line once; defects of ours keep their traceback."""

import pytest

from nisbjax.errors import InputError
from nisbjax.modes.findings import Findings


def test_each_line_stands_once_in_its_own_list():
    found = Findings()
    for _ in range(2):
        with found.asking():
            raise InputError("a is 1;\n wanted 2")
    with found.asking():
        raise OSError(28, "No space left on device", "c.png")
    found.warn("d")
    assert found.text().splitlines() == [
        "worth a look:",
        "  1. d",
        "",
        "wrong:",
        "  1. a is 1; wanted 2",
        "  2. c.png: No space left on device; free space there, or name another place, "
        + "and start again",
    ]


def test_nothing_wrong_is_ready():
    found = Findings()
    assert found.text() == "ready"
    found.warn("d")
    assert found.text().splitlines()[-1] == "ready"


def test_a_defect_is_not_swallowed():
    with pytest.raises(KeyError), Findings().asking():
        raise KeyError("ours")
