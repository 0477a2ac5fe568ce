"""The tuning curve: four panels of the scores, and the best threshold among them."""

import numpy as np

from nisbjax.store import figures
from nisbjax.tune import figure


def test_scores_by_dense_labels_have_two_panels(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        figures, "save", lambda drawing, *_, **__: drawn.append(drawing)
    )
    names = ("adapted_rand_error", "adapted_rand_precision", "adapted_rand_recall")
    names += ("voi_split", "voi_merge", "voi_sum")
    rows = [
        {"threshold": t, **{n: k + 0.1 * i for i, n in enumerate(names)}}
        for k, t in enumerate([0.4, 0.5])
    ]
    figure.draw(rows, rows[1], ["threshold"], tmp_path / "tune.png")
    rand, voi = drawn[0].axes
    assert [line.get_label() for line in rand.get_lines()[:3]] == [
        "error",
        "precision",
        "recall",
    ]
    assert rand.get_lines()[0].get_ydata().tolist() == [0, 1]
    assert len(voi.get_lines()) == 4  # with the chosen threshold's
    assert drawn[0].get_suptitle() == (
        "threshold 0.5: adapted Rand error 1.0000, VOI 1.500"
    )


def test_panels_hold_the_scores_by_threshold(tmp_path, monkeypatch):
    drawn = []
    save = figures.save

    def kept(drawing, *arguments, **options):
        drawn.append(drawing)
        save(drawing, *arguments, **options)

    monkeypatch.setattr(figures, "save", kept)
    names = ("voi_split", "voi_merge", "voi_sum", "coverage", "coverage_length")
    names += ("n_non0_mergers", "n_splits")
    rows = [
        {
            "threshold": t,
            "min_size": 7,
            "nerl": nerl,
            "nerl_sd": 0.05,
            **{n: 10 * k + i for i, n in enumerate(names)},
        }
        for k, (t, nerl) in enumerate([(0.4, 0.2), (0.5, 0.6), (0.7, 0.1)])
    ]
    path = tmp_path / "tune.png"
    figure.draw(rows, rows[1], ["threshold", "min_size"], path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    nerl, voi, background, counts = drawn[0].axes
    curve, mean, best = nerl.get_lines()
    assert np.isnan(
        np.asarray(mean.get_ydata(), float)
    ).all()  # trials of before it was kept
    (bars,) = nerl.collections
    ends = [s[:, 1].tolist() for s in bars.get_segments()]
    np.testing.assert_allclose(ends, [[0.15, 0.25], [0.55, 0.65], [0.05, 0.15]])
    assert curve.get_xdata().tolist() == [0.4, 0.5, 0.7]
    assert curve.get_ydata().tolist() == [0.2, 0.6, 0.1]
    assert curve.get_linestyle() == "None"
    assert list(best.get_xdata()) == [0.5, 0.5]
    assert [len(axes.get_lines()) for axes in (voi, background, counts)] == [4, 3, 3]
    split = next(line for line in voi.get_lines() if line.get_label() == "split")
    assert split.get_ydata().tolist() == [0, 10, 20]
    # the second row is the best: its coverage is 10 + 3, a share
    assert drawn[0].get_suptitle() == (
        "threshold 0.5, min_size 7: NERL 0.6000, 1300.0 % of nodes on background"
    )
