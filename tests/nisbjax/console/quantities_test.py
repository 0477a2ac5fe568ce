"""Seconds, bytes and rates in words, at the edges of their units."""

import pytest

from nisbjax.console import quantities


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (5940, "99 min"),
        (6000, "1 h 40 min"),
        (2 * 3600, "2 h"),
        (48 * 3600 - 60, "47 h 59 min"),
        (52 * 3600, "2 d 4 h"),
        (48 * 3600, "2 d"),
    ],
)
def test_a_duration(seconds, said):
    assert quantities.duration(float(seconds)) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (84_400_000_000, "84 GB"),
        (1_230_000_000, "1.2 GB"),
        (999_600, "1.0 MB"),
        (2_500_000_000_000_000, "2500 TB"),
    ],
)
def test_a_size(count, said):
    assert quantities.size(count) == said


def test_a_rate_is_for_a_second_or_for_a_piece():
    assert quantities.rate(31, 10.0) == "3.1 a second"
    assert quantities.rate(2, 30.0) == "15 s each"
    assert quantities.rate(0, 30.0) == "-"


def test_a_shape():
    assert quantities.shape((64, 64, 32)) == "64 x 64 x 32"
