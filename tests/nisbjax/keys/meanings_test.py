"""Every key has one sentence."""

import itertools

from nisbjax.config import base_config, flatten
from nisbjax.keys.meanings import meanings
from nisbjax.keys.ranges import RANGES


def test_every_key_has_a_sentence():
    known = flatten(base_config()).keys()
    assert known == RANGES.keys()
    without = sorted(known - meanings().keys())
    assert not without, f"give {without} a sentence in nisbjax/keys/meanings.py"
    unknown = sorted(meanings().keys() - known)
    assert not unknown, f"{unknown} are no keys"
    for key, sentence in meanings().items():
        assert sentence.endswith(".") and "  " not in sentence, key
        assert len(sentence) <= 160, key


def test_sections_stand_together():
    sections = [key.split(".")[0] for key in meanings() if "." in key]
    changes = sum(a != b for a, b in itertools.pairwise(sections))
    assert changes == len(set(sections)) - 1


def test_a_sentence_goes_on_in_lines_that_begin_with_blanks():
    assert meanings()["decode.low_threshold"] == (
        "grow: seeds grow along affinities down to it; mutex: long-range edges repel "
        "below it."
    )
