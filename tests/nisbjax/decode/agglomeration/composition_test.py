"""Ways to join fragments one after another, and what they take."""

import numpy as np
import pytest

from nisbjax.decode.agglomeration.composition import JoinParameters, join_volume
from nisbjax.decode.agglomeration.evidence import BINS, UNIT
from nisbjax.decode.agglomeration.pairs import Pairs
from nisbjax.errors import InputError
from nisbjax.store.volume import from_array


def pairs_of(voxels, links, bins=()):
    """Links: (low, high, number, total in logits), ascending; all touch."""
    low, high, number, total = zip(*links, strict=True)
    histogram = np.zeros((len(links), BINS), np.int32)
    histogram[np.arange(len(bins)), list(bins)] = 1
    return Pairs(
        np.arange(len(voxels)),
        np.array(low, np.int32),
        np.array(high, np.int32),
        np.ones(len(links), bool),
        np.array(number, np.int64),
        np.array([round(t * UNIT) for t in total], np.int64),
        np.array(voxels, np.int64),
        histogram if bins else None,
    )


def test_each_way_works_on_what_the_one_before_left():
    # 0-1 is the only pair above 0; {0 1} has 80 voxels then. 2, of 70, has -1 for it, and 3,
    # of 1, has .5 for 2 and nothing to do with {0 1}.
    links = [(0, 1, 1, 5.0), (1, 2, 1, -1.0), (2, 3, 2, 1.0)]
    voxels = [40, 40, 70, 1]

    def table(*ways, **chosen):
        parameters = JoinParameters(joins=ways, **chosen)
        return parameters.table_of(pairs_of(voxels, links)).tolist()

    assert table() == [0, 1, 2, 3]
    assert table("average") == [0, 0, 2, 2]
    # Alone, no fragment has 80 voxels; after average {0 1} has, and {2 3} has 71.
    assert table("absorb", absorb_below=80) == [0, 1, 2, 3]
    low = {"absorb_below": 80, "absorb_least": -2.0}
    assert table("absorb", **low) == [0, 1, 2, 3]
    assert table("average", "absorb", **low) == [0, 0, 0, 0]
    # In the other order absorb has nothing to do.
    assert table("absorb", "average", **low) == [0, 0, 2, 2]
    # -1 is no more than -1.
    low["absorb_least"] = -1.0
    assert table("average", "absorb", **low) == [0, 0, 2, 2]


def test_the_links_of_what_has_joined_count_once():
    # 2 has -1 for 0 and .4 for 1: -.3 for both together. Taken twice, .4 would make it -.07.
    links = [(0, 1, 1, 5.0), (0, 2, 1, -1.0), (1, 2, 1, 0.4)]
    for least, wanted in ((-0.2, [0, 0, 2]), (-0.4, [0, 0, 0])):
        parameters = JoinParameters(
            joins=("average", "absorb"), absorb_below=80, absorb_least=least
        )
        found = parameters.table_of(pairs_of([40, 40, 70], links))
        assert found.tolist() == wanted


def test_quantiles_come_after_other_ways_too():
    # Affinities in bins 200 (.78), 128 (.502) and 26 (.104): 1 less them is .22, .498, .896.
    links = [(0, 1, 1, 5.0), (1, 2, 1, -1.0), (2, 3, 1, -1.0)]
    bins = (200, 128, 26)

    def table(*ways, threshold):
        parameters = JoinParameters(joins=ways, quantile_threshold=threshold)
        return parameters.table_of(pairs_of([9, 9, 9, 9], links, bins)).tolist()

    assert table("quantile", threshold=0.3) == [0, 0, 2, 3]
    assert table("average", "quantile", threshold=0.2) == [0, 0, 2, 3]
    assert table("average", "quantile", threshold=0.5) == [0, 0, 0, 3]


def test_what_no_way_takes_does_not_count():
    assert JoinParameters(faces=3).joining() == {}
    assert JoinParameters(joins=("",)).joining() == {}
    wanted = {"joins": ("average",), "faces": 3, "short": 1.0, "long": 0.0}
    assert JoinParameters(joins="average", faces=3).joining() == wanted
    found = JoinParameters(joins=("quantile", "absorb")).joining()
    assert list(found) == [
        *("joins", "faces", "short", "long", "absorb_below", "absorb_least"),
        *("quantile", "quantile_threshold"),
    ]
    found = JoinParameters(joins=("quantile",)).joining()
    assert list(found) == ["joins", "faces", "quantile", "quantile_threshold"]


@pytest.mark.parametrize(
    "changed, said",
    [
        (
            {"joins": ("average", "median")},
            "decode.joins is 'median'; wanted one of ave",
        ),
        ({"faces": 0}, "decode.faces is 0; wanted 1 or more"),
        ({"absorb_below": 0}, "decode.absorb_below is 0; wanted 1 or more voxels"),
        ({"absorb_least": np.nan}, "decode.absorb_least is nan; wanted a finite logit"),
        (
            {"quantile": 101.0},
            r"decode.quantile is 101.0; wanted a number in \[0, 100\]",
        ),
        (
            {"quantile_threshold": np.nan},
            "quantile_threshold is nan; wanted a number in",
        ),
    ],
)
def test_what_means_nothing_is_refused(changed, said):
    with pytest.raises(InputError, match=said):
        JoinParameters(**{"joins": "average", **changed}).check_joins()
    if "joins" not in changed:
        JoinParameters(**changed).check_joins()  # nobody takes it


def test_a_volume_of_labels(tmp_path):
    # Six voxels along z: 2 2 4 4 7 7, logits log 9 = 2.2 between 2 and 4, -1.39 behind.
    labels = np.array([2, 2, 4, 4, 7, 7], np.uint32).reshape(1, 1, 6)
    affinities = np.full((3, 1, 1, 6), 0.5, np.float16)
    affinities[2, 0, 0] = [0.5, 0.9, 0.5, 0.2, 0.5, 0.5]

    def table(folder, **chosen):
        return join_volume(
            from_array(labels, "xyz"),
            from_array(affinities, "cxyz"),
            tmp_path / folder,
            JoinParameters(faces=1, **chosen),
            memory_gb=1.0,
        )

    found = table("average", joins="average")
    assert found.tolist() == [0, 1, 2, 3, 2, 5, 6, 7]
    assert found[labels].ravel().tolist() == [2, 2, 2, 2, 7, 7]
    # 1 - .2 = .8 is below .85.
    found = table("quantile", joins="quantile", quantile_threshold=0.85)
    assert found[labels].ravel().tolist() == [2] * 6
