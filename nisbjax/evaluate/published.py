"""The published figures of NISB's settings, to be printed beside ours.

Source: the leaderboard at structuralneurobiologylab.github.io/nisb (mean and 95 %
confidence interval over five trainings; VOI on skeleton nodes), and for LICONN the
comments in PyTC's later configurations. A single run that chose its threshold on the
validation cube is not such a mean, and the line says so.
"""

import re

# NERL [%] and VOI [bit] of BANIS-S (S/k3) and BANIS-L (L/k5), 50 k steps, batch 8
LEADERBOARD = {
    "base": ((24.4, 1.4, 3.46, 0.05), (43.0, 1.9, 2.35, 0.02)),
    "train_100": ((24.0, 1.6, 3.48, 0.09), (42.5, 1.1, 2.38, 0.02)),
    "slice_perturbed": ((21.3, 1.2, 3.85, 0.07), (34.1, 0.9, 3.33, 0.07)),
    "pos_guidance": ((33.7, 9.0, 2.47, 0.32), (65.4, 2.3, 1.49, 0.02)),
    "neg_guidance": ((1.5, 0.1, 6.92, 0.05), (7.3, 0.7, 6.13, 0.16)),
    "no_touch_thick": ((95.4, 0.8, 0.17, 0.03), (98.2, 0.3, 0.07, 0.00)),
    "touching_thin": ((1.2, 0.1, 7.37, 0.03), (3.8, 0.1, 6.72, 0.02)),
    "liconn": ((6.3, 0.4, 6.45, 0.08), (12.9, 0.8, 4.92, 0.13)),
    "multichannel": ((26.9, 5.5, 3.57, 0.60), (51.3, 5.1, 2.25, 0.17)),
}
CLAIMS = {
    "liconn": "PyTC v3 erosion 2: NERL 21.1 % (27 % of nodes on background; its comments, "
    "threshold not stated)",
    "base": "PyTC BANIS+ L/k3 200 k: NERL 59.6 +- 1.1 % (coverage not published; its "
    "README, 3 runs)",
}


# In a threshold's origin, where it was chosen on the volume that is tested.
TEST_DATA = "(test data)"


def setting_of(name: str) -> str:
    """`nisb_liconn_banis_v3_erosion2` -> `liconn`; "" where a run is of no setting."""
    settings = "|".join(sorted(LEADERBOARD, key=len, reverse=True))
    found = re.match(rf"nisb_({settings})(_|$)", name)
    return found[1] if found else ""


def lines(setting: str, chosen_on: str) -> list[str]:
    """Lines for a report: the published figures and what ours is beside them.

    Args:
      setting: of `LEADERBOARD`, or "".
      chosen_on: where the threshold of ours came from.
    """
    if not setting:
        return []
    text = [f"NISB {setting}, published (mean +- 95 % CI over five trainings):"]
    for model, (nerl, nerl_ci, voi, voi_ci) in zip(
        ("BANIS-S", "BANIS-L"), LEADERBOARD[setting], strict=True
    ):
        text.append(
            f"  {model}: NERL {nerl} +- {nerl_ci} %, VOI {voi} +- {voi_ci} "
            "(coverage not published)"
        )
    if setting in CLAIMS:
        text.append(f"  {CLAIMS[setting]}")
    how = "val-selected" if chosen_on.startswith("tuned on ") else chosen_on
    if TEST_DATA in chosen_on:
        how = "test-selected, which is no test result"
    return [*text, f"  this run: n = 1, {how}"]
