"""Keys that are made of parts: what they hold, and what not."""

import pytest

from nisbjax.keys import shapes


@pytest.mark.parametrize(
    "kind, right, wrong",
    [
        (
            shapes.offsets(),
            [((1, 0, 0),), ((0, 0, -10), (5, 5, 0))],
            [((0, 0, 0),), ((1, 0),), ((1.5, 0, 0),), (1, 0, 0), ()],
        ),
        (shapes.unlabeled(), ["", "default", "0,65535"], ["a", 5, None]),
        (shapes.label_offset(), ["", "centre", "0,1,2"], ["1,2", "-1,0,0", "a", 5]),
        (shapes.grey_range(), [(0, 255.5), [-3, 0]], [(5, 5), (9, 1), 5, (0, 1, 2)]),
        (shapes.percentiles(), [(0, 100), [0.5, 99.5]], [(5, 5), (9, 1), (0, 101), 5]),
        (
            shapes.mesh(),
            [(("data", -1),), (("data", 2), ("space", 4))],
            [
                (("space", 4),),
                (("data", 0),),
                (("data", -1), ("space", -1)),
                (("data", 1), ("data", 1)),
                ("data",),
                5,
            ],
        ),
        (
            shapes.space(),
            [(), (("threshold", 0.1, 0.9),), (("min_size", 1, 9, 3),)],
            [(("threshold", 0.9, 0.1),), (("a", 0, 1, 0),), ((1, 0, 1),), ("a",)],
        ),
    ],
)
def test_forms(kind, right, wrong):
    assert [value for value in right if not kind.holds(value)] == []
    assert [value for value in wrong if kind.holds(value)] == []
