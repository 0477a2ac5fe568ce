"""The text of a report for figures worked by hand."""

import numpy as np

from nisbjax.qc import report, statistics
from nisbjax.qc.cuts import find_cuts
from nisbjax.qc.front_matter import FrontMatter
from nisbjax.store.volume import from_array

KEYS = {"z_stride": 1, "refine_window": 2, "drift_thresh": 0.05, "auto_extend": True}


def text(values, **keys):
    found = statistics.scan(from_array(values, "cxyz"))
    keys = {**KEYS, **keys}
    cuts = find_cuts(found.planes, **keys)
    front = FrontMatter("", "/m.h5", cuts.low_z, cuts.high_z, 30.0, 4)
    subject = report.Subject("/raw.h5", values.shape, "float32", "", ("r.planes.png",))
    return report.text(front, subject, found, cuts, keys)


def test_a_report_of_eight_planes():
    """2 x 1 x 8 voxels: x and z are .5; y is .25 but for planes 0-2 and 5, of 0.

    y has the mean (4 x .25) / 8 = .125, so that its cutoff is .075; the standard deviation
    is sqrt(4 x .0625 / 8 - .125^2) = .125. Planes 0 to 2 and 5 fail.
    """
    values = np.full((3, 2, 1, 8), 0.5, np.float32)
    values[1] = 0.25
    values[1, ..., [0, 1, 2, 5]] = 0
    lines = text(values).splitlines()
    assert lines[:8] == [
        "---", "img: null", "out: /m.h5", "low_z: 3", "high_z: 8", "bg_thresh: 30",
        "border_width: 4", "---",
    ]  # fmt: skip
    for line in (
        "- pred: `/raw.h5` (3 x 2 x 1 x 8, float32)",
        "- img: none",
        "- voxels: 16 in each channel, all of them read; 16 in the 8 sampled planes",
        "| x | 0.5000 | 0.0000 | 0.5000 | 0.5000 |",
        "| y | 0.1250 | 0.1250 | 0.0000 | 0.2500 |",
        "- channel-mean spread: 0.3750 (imbalanced)",
        "## Derived Z cuts (drift_thresh=0.05)",
        "| y | 0.1250 | 0.0750 |",
        "- low_z: 3, high_z: 8 of 8 planes",
        (
            "- low_z **saturated**: none of the first 2 planes passes; the search went on until "
            "one did"
        ),
        "- the reference's search of 2 planes at each end says low_z 2, high_z 8",
        "- 1 planes between the cuts do not pass and are kept: 5",
        "WARN: no image of the prediction's shape; skipped",
        "![r.planes.png](r.planes.png)",
    ):
        assert line in lines, line


def test_a_search_that_does_not_go_on_says_so():
    values = np.full((3, 1, 1, 6), 0.5, np.float32)
    values[:, ..., :2] = 0
    found = text(values, auto_extend=False)
    assert "the true bad range is unknown (qc.auto_extend searches on)" in found


def test_nothing_that_passes_is_said():
    values = np.full((3, 1, 1, 4), np.nan, np.float32)
    assert "- **no plane passes in all channels**: nothing would be kept" in text(
        values
    )


def test_planes_are_listed_as_ranges():
    assert report._ranges((3, 7, 8, 9, 12)) == "3, 7-9, 12"
    assert report._ranges(tuple(range(0, 50, 2)), most=2) == "0, 2 and 23 more"


def test_channels_have_names():
    assert [report.channel_name(c) for c in (0, 1, 2, 3)] == ["x", "y", "z", "3"]
