import numpy as np
import pytest

from nisbjax.decode import chain
from nisbjax.decode.chain import ChainParameters, chain_affinities
from nisbjax.errors import InputError

OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 3))


def row(short, long):
    """Affinities of a row along z: to the next voxel, and to the third after it."""
    affinities = np.zeros((4, 1, 1, len(short)), np.float32)
    affinities[2, 0, 0], affinities[3, 0, 0] = short, long
    return affinities


def test_fragments_grow_where_nobody_else_comes_near():
    # Logits of .9, .55 and .4 are 2.2, .2 and below: .55 and .4 attract nothing. Fragments
    # are voxels 0-1 and 4-5; 2 hangs at the first by .55; 3 hangs at the other by .5 and at
    # 2 by .4, weaker by .1.
    affinities = row([0.9, 0.55, 0.4, 0.5, 0.9, 0.0], [0.9] * 6)
    parameters = ChainParameters(anchor=2, low=0.45, margin=0.03)
    found = chain_affinities(affinities, OFFSETS, parameters)
    assert found.ravel().tolist() == [1, 1, 1, 2, 2, 2]
    # No closer than .1 is asked for: 3 is contested (.5 and .4), and 2 (.55 and .4) is not.
    parameters = ChainParameters(anchor=2, low=0.45, margin=0.12)
    found = chain_affinities(affinities, OFFSETS, parameters)
    assert found.ravel().tolist() == [1, 1, 1, 0, 2, 2]


def test_fragments_below_an_anchor_leave_their_place():
    # Voxels 0-2 are one fragment, 3-4 another, apart by .9 < 2-3; an anchor has three.
    affinities = row([0.9, 0.9, 0.5, 0.9, 0.0], [0.9] * 5)
    parameters = ChainParameters(anchor=3, low=0.6)
    found = chain_affinities(affinities, OFFSETS, parameters)
    assert found.ravel().tolist() == [1, 1, 1, 0, 0]
    # Down to .45 the anchor takes both.
    parameters = ChainParameters(anchor=3, low=0.45)
    found = chain_affinities(affinities, OFFSETS, parameters)
    assert found.ravel().tolist() == [1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"attract": np.nan}, r"decode.attract is nan; wanted a finite logit"),
        ({"repel": np.inf}, r"decode.repel is inf; wanted a finite logit"),
        ({"anchor": 0}, r"decode.anchor is 0; wanted 1 or more voxels"),
        ({"low": 1.5}, r"threshold 1.5 came"),
        ({"margin": 0.0}, r"margin of contested growth is 0.0"),
        ({"joins": "median"}, r"decode.joins is 'median'; wanted one of average"),
        ({"joins": "average", "faces": 0}, r"decode.faces is 0; wanted 1 or more"),
        ({"shave": -1}, r"decode.shave is -1; wanted 0 to 16 voxels"),
    ],
)
def test_parameters_without_meaning_are_refused(changed, said):
    with pytest.raises(InputError, match=said):
        chain.check(np.dtype(np.float16), ChainParameters(**changed))


def test_joins_decide_only_where_there_are_any():
    assert list(ChainParameters(faces=3).counting()) == [
        *("attract", "repel", "anchor", "low", "margin")
    ]
    found = ChainParameters(joins="average", faces=3).counting()
    assert (found["joins"], found["faces"]) == (("average",), 3)
    assert "shave" not in found
    assert ChainParameters(shave=2).counting()["shave"] == 2


def test_joins_of_a_volume_in_memory_are_refused():
    affinities = row([0.9, 0.0], [0.9] * 2)
    with pytest.raises(InputError, match="without joins; use chain_volume"):
        chain_affinities(affinities, OFFSETS, ChainParameters(joins="average"))


def test_three_channels_are_refused_and_the_way_out_is_named():
    with pytest.raises(InputError, match=r"of 3 channels.*decode.method=chain3"):
        chain.check_channels(OFFSETS[:3])
