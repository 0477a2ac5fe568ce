"""Which published figures stand beside a run, and what is said of ours."""

import pytest

from nisbjax.evaluate import published


def test_published_figures_of_a_setting():
    assert published.setting_of("nisb_liconn_banis_v3_erosion2") == "liconn"
    assert published.setting_of("nisb_train_100") == "train_100"
    assert published.setting_of("fib25") == ""
    text = "\n".join(published.lines("liconn", "tuned on best_params.yaml"))
    assert "BANIS-L: NERL 12.9 +- 0.8 %, VOI 4.92 +- 0.13" in text
    assert "this run: n = 1, val-selected" in text
    assert "n = 1, default" in published.lines("base", "default")[-1]
    assert published.lines("", "default") == []
    tested = published.lines("liconn", "tuned on best_params.yaml (test data)")
    assert tested[-1] == "  this run: n = 1, test-selected, which is no test result"


@pytest.mark.parametrize("setting", published.LEADERBOARD)
def test_every_published_nerl_says_its_coverage_or_that_there_is_none(setting):
    for line in published.lines(setting, "default"):
        assert "NERL" not in line or "background" in line or "not published" in line
