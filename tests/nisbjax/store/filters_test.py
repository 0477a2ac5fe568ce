"""HDF5's filters undone, and what is wrong with a chunk."""

import zlib

from hypothesis import given
from hypothesis import strategies as st

from nisbjax.store.filters import fletcher32, undo


@given(st.binary(max_size=300))
def test_checksums_are_hdf5s(data):
    """Against HDF5's own words, one by one, as its format's specification has them."""
    low = high = 0
    padded = data + b"\0" * (len(data) % 2)
    for i in range(0, len(padded), 2):
        low = (low + padded[i] * 256 + padded[i + 1]) % 65535
        high = (high + low) % 65535
    assert fletcher32(data) == (low, high)


@given(st.binary(max_size=60), st.integers(0, 80))
def test_any_bytes_are_unpacked_or_refused(data, size):
    for code in (1, 2, 3, 32000):
        out, problem = undo(data, ((code, (2, 0, 64)),), 0, size)
        assert problem or len(out) == size


def test_what_is_wrong_with_a_chunk():
    assert undo(b"abcd", (), 0, 4) == (b"abcd", "")
    assert undo(b"abc", (), 0, 4)[1] == "it holds 3 bytes and should hold 4"
    assert undo(b"abc", ((3, ()),), 0, 4)[1] == "it is too short for its checksum"
    assert "(fletcher32) is another" in undo(b"abcd0000", ((3, ()),), 0, 4)[1]
    assert "gzip cannot inflate it" in undo(b"junk", ((1, (4,)),), 0, 4)[1]
    cut = zlib.compress(b"abcd")[:-5]
    assert "has no end" in undo(cut, ((1, (4,)),), 0, 4)[1]
    bomb = zlib.compress(bytes(1 << 20))
    assert "inflates to more than a chunk" in undo(bomb, ((1, (4,)),), 0, 4)[1]
    # One literal byte was announced, and none follows.
    assert undo(b"\x00", ((32000, ()),), 0, 4)[1] == "LZF cannot unpack it"
