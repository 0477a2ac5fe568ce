"""Streams of LZF, written by hand."""

import numpy as np
import pytest

from nisbjax.store import lzf


def unpacked(stream, room):
    out = np.zeros(room, np.uint8)
    written = lzf.unpack(np.frombuffer(bytes(stream), np.uint8), out)
    return written, bytes(out[: max(written, 0)])


def test_literals_and_copies():
    # 2: three bytes as they are. 1 << 5 | 0, 2: copy 1 + 2 bytes from 2 + 1 back.
    assert unpacked([2, *b"abc"], 3) == (3, b"abc")
    assert unpacked([2, *b"abc", 1 << 5, 2], 6) == (6, b"abcabc")
    # From 1 back: a copy may overlap what it makes.
    assert unpacked([0, *b"a", 1 << 5, 0], 4) == (4, b"aaaa")
    # 7 << 5: one more byte of length, 7 + 1 + 2 bytes.
    assert unpacked([0, *b"a", 7 << 5, 1, 0], 11) == (11, b"a" * 11)


@pytest.mark.parametrize(
    "stream, room",
    [
        ([2, *b"ab"], 9),  # breaks off in literals
        ([0, *b"a", 1 << 5], 9),  # ... before how far back
        ([0, *b"a", 7 << 5], 9),  # ... before the rest of a length
        ([0, *b"a", 1 << 5, 1], 9),  # from before the start
        ([2, *b"abc"], 2),  # more than there is room for
        ([0, *b"a", 1 << 5, 0], 3),
    ],
)
def test_streams_that_are_none(stream, room):
    assert unpacked(stream, room)[0] == -1
