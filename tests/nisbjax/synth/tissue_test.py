"""Which tissue can be made."""

import pytest

from nisbjax.errors import InputError
from nisbjax.synth.tissue import Tissue


def test_impossible_tissue_is_refused():
    with pytest.raises(InputError, match="wanted 0 < thinnest <= median <= thickest"):
        Tissue(radius_range=(80.0, 200.0))
    with pytest.raises(
        InputError, match=r"the tissue's fill is 0.0; wanted more than 0"
    ):
        Tissue(fill=0.0)
    with pytest.raises(InputError, match="a ring of 11 and 4 .* holds no tissue"):
        Tissue(halo_voxels=11).labelled((24, 24, 24))
