"""Two segmentations of one volume, skeleton by skeleton: which is better, and how surely.

Two NERLs of one volume share its skeletons, so their difference is known much better than
either; and where one decoder leaves nodes on background, it counts what the other made of
them. BANIS and PyTC compare single numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Integer

from nisbjax.evaluate import nerl, node_pairs, oracles, spread
from nisbjax.skeletons import Skeletons

DRAWS = 1000
CONFIDENCE = 0.8
_EQUAL = 1e-9  # of a skeleton's NERL


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two segmentations of one volume at the nodes of its skeletons.

    Attributes:
      skeleton_ids: of those that have a length and an id other than 0.
      weights: their squared lengths [nm^2].
      first, second: NERL of each of them alone, in the two segmentations.
      background: n_background, n_own, n_other, n_none; see `compare`.
    """

    skeleton_ids: Integer[np.ndarray, " k"]
    weights: Float64[np.ndarray, " k"]
    first: Float64[np.ndarray, " k"]
    second: Float64[np.ndarray, " k"]
    background: dict[str, int]

    def facts(self) -> dict[str, float | int | list[float]]:
        """What `compare` documents, for a JSON."""
        change = self.second - self.first
        low, high = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
        by_nerl, by_mean = [], []
        for chosen in spread.resamples(len(change), DRAWS):
            weight = self.weights[chosen]
            by_nerl.append((weight * change[chosen]).sum() / weight.sum())
            by_mean.append(change[chosen].mean())
        weight = self.weights / self.weights.sum()
        return {
            "n_skeletons": len(change),
            "n_better": int((change > _EQUAL).sum()),
            "n_worse": int((change < -_EQUAL).sum()),
            "nerl_difference": float((weight * change).sum()),
            "nerl_interval": np.quantile(by_nerl, (low, high)).tolist(),
            "nerl_mean_difference": float(change.mean()),
            "nerl_mean_interval": np.quantile(by_mean, (low, high)).tolist(),
            **self.background,
        }


def compare(
    skeletons: Skeletons,
    first: Integer[np.ndarray, " n"],
    second: Integer[np.ndarray, " n"],
) -> Comparison:
    """Compares two segmentations by the segments at the nodes.

    Of two skeletons of two nodes each, 10 nm long, the first segmentation says 5 0 and
    6 6, the second 5 5 and 5 5. The first skeleton stays at 0 (then it is merged), the
    second falls from 1 to 0: none better, one worse. The node on background went to
    segment 5, which belongs to the first skeleton, as of equal ones the first owns it:
    one of one to its own.

    Args:
      skeletons: the ground truth.
      first: segment of each node in the one that is compared with, 0 = background.
      second: in the other.

    Returns:
      `facts()` of it: n_skeletons, n_better, n_worse (of the second). nerl_difference
      and nerl_mean_difference: second minus first, of NERL and of the mean over
      skeletons, each with the 80 % interval over resampled skeletons
      (nerl_interval, nerl_mean_interval). Of the nodes that the first left on
      background (n_background), how many the second gave a segment of their own
      skeleton (n_own), of another's (n_other), or none (n_none); a segment is that of
      the skeleton that most of its nodes belong to.

    Raises:
      InputError: as `node_pairs.overlap`.
    """
    before = node_pairs.overlap(skeletons, first)
    after = node_pairs.overlap(skeletons, second)
    own = nerl.own_squares(skeletons, before)
    kept = own > 0
    skeleton = after.pair_skeleton[after.node_pair]
    owner = oracles.owners(after)[after.pair_segment[after.node_pair]]
    dark = before.node_segments == 0
    given = dark & (after.node_segments != 0)
    background = {
        "n_background": int(dark.sum()),
        "n_own": int((given & (owner == skeleton)).sum()),
        "n_other": int((given & (owner != skeleton)).sum()),
        "n_none": int((dark & ~given).sum()),
    }
    return Comparison(
        before.skeleton_ids[kept],
        own[kept],
        nerl.kept_squares(before)[kept] / own[kept],
        nerl.kept_squares(after)[kept] / own[kept],
        background,
    )


def text(facts: dict, first: str, second: str) -> str:
    """The comparison in words.

    Args:
      facts: of `Comparison.facts`.
      first, second: what was compared, as they are to be called.
    """
    n, given = facts["n_background"], facts["n_own"] + facts["n_other"]
    lines = [f"first:  {first}", f"second: {second}", ""]
    lines.append(
        f"{facts['n_skeletons']} skeletons: {facts['n_better']} better in the second, "
        f"{facts['n_worse']} worse"
    )
    for name, key in (("NERL", "nerl"), ("mean over skeletons", "nerl_mean")):
        low, high = facts[f"{key}_interval"]
        lines.append(
            f"{name}: {facts[f'{key}_difference']:+.4f} "
            f"({CONFIDENCE:.0%} interval {low:+.4f} to {high:+.4f})"
        )
    line = f"{n} nodes that the first left on background"
    if n:
        line += f": the second gave {100 * given / n:.1f} % of them a segment"
    if given:
        share = 100 * facts["n_other"] / given
        line += f", of those {share:.1f} % another skeleton's"
    return "\n".join([*lines, line, ""])


def text_of_labels(
    scores: Mapping[str, Mapping[str, float]], first: str, second: str
) -> str:
    """Scores against dense labels side by side, and which way is better.

    Args:
      scores: by name, `first`, `second` and `difference` of each.
      first, second: as `text`.
    """
    lines = [f"first:  {first}", f"second: {second}", ""]
    width = max(map(len, scores))
    lines.append(f"{'':{width}}    first   second  second - first")
    for name, score in scores.items():
        errors = name == "adapted_rand_error" or name.startswith("voi")
        change = score["difference"] * (-1 if errors else 1)
        verdict = "better" if change > 0 else "worse" if change < 0 else "equal"
        lines.append(
            f"{name:{width}}  {score['first']:7.4f}  {score['second']:7.4f}  "
            f"{score['difference']:+14.4f}  {verdict}"
        )
    return "\n".join([*lines, ""])
