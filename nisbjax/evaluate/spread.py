"""How far a NERL can be trusted: over which skeletons it is spread.

NERL weighs a skeleton by the square of its length, so that a few large ones carry it: one
merger of two of them moves it by tenths, and one skeleton may hold half of the weight. The
plain mean over skeletons orders decoders more steadily. BANIS and PyTC print NERL alone.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int64

DRAWS = 200  # resamples of the skeletons
# From this share of the weight on, one skeleton's fate is most of what a NERL says.
LARGE_SHARE = 1 / 3


def resamples(n: int, draws: int) -> Iterator[Int64[np.ndarray, " n"]]:
    """Rows of n skeletons, drawn with replacement; the same draws each time."""
    draw = np.random.default_rng(0)
    return (draw.integers(0, n, n) for _ in range(draws))


def spread(
    kept: Float64[np.ndarray, " k"], own: Float64[np.ndarray, " k"]
) -> dict[str, float]:
    """Mean over skeletons, standard deviation over resampled skeletons, largest weight.

    Two skeletons of 30 and 10 nm, the first kept whole and the second cut in halves:
    kept is 900 and 5^2 + 5^2 = 50, own 900 and 100. NERL is 950 / 1000 = .95, the mean
    over skeletons (1 + .5) / 2 = .75, the largest share 900 / 1000. Resampled, two draws
    of the first give 1, of the second .5, of both .95: a deviation of about .2.

    Args:
      kept: of each skeleton, the sum of squared lengths that stayed in one piece [nm^2].
      own: its squared length [nm^2]; 0 for what counts as background in the truth.

    Returns:
      nerl_mean: of kept / own over the skeletons that have a length. nerl_sd: of NERL over
      200 draws of as many skeletons with replacement, always the same draws. nerl_share:
      the largest part that one skeleton has in the weight.
    """
    measured = own > 0
    found = []
    for chosen in resamples(len(own), DRAWS):
        weight = own[chosen].sum()
        # Draws of background alone have no NERL.
        found += [kept[chosen].sum() / weight] if weight > 0 else []
    return {
        "nerl_mean": float((kept[measured] / own[measured]).mean()),
        "nerl_sd": float(np.std(found)) if found else 0.0,
        "nerl_share": float(own.max() / own.sum()),
    }


def note(share: float) -> str:
    """A sentence where one skeleton has over a third of the weight, else ""."""
    if share <= LARGE_SHARE:
        return ""
    return (
        f"one skeleton has {100 * share:.0f} % of the weight of NERL, which says little "
        "about the others; compare by nerl_mean"
    )
