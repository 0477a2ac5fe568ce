"""The ten best trials, the default and the chosen one; which of them is marked."""

from nisbjax.tune import trial_table

# 12 trials of NERL .00, .01, ... at thresholds 0, .1, ...; VOI falls likewise.
ROWS = [
    {"threshold": i / 10, "nerl": i / 100, "voi_sum": 2 - i / 10, "coverage": 0.25}
    for i in range(12)
]


def table(chosen, default, rows=ROWS, objective="nerl"):
    said = trial_table.text(
        rows,
        ["threshold"],
        objective,
        chosen={"min_size": 5, "threshold": chosen},
        default={"threshold": default},
    )
    return [line.split() for line in said.split("\n")]


def test_the_best_ten_come_first_and_the_default_wherever_it_is():
    lines = table(1.1, 0.1)
    assert lines[0] == ["threshold", "NERL", "VOI", "on", "bg"]
    assert lines[1] == ["chosen", "1.1", "0.110", "0.90", "25.0%"]
    assert lines[2] == ["1", "0.100", "1.00", "25.0%"]
    # ten, from 1.1 to .2, then the default; that of threshold 0 is left out
    assert [line[-4] for line in lines[1:11]][-1] == "0.2"
    assert lines[11:] == [["default", "0.1", "0.010", "1.90", "25.0%"], ["1", "more"]]


def test_one_trial_may_be_both_and_less_voi_is_better():
    lines = table(1.1, 1.1, ROWS[-2:], "voi")
    assert [line[0] for line in lines[1:]] == ["chosen,", "1"]
    assert lines[1][1] == "default"
