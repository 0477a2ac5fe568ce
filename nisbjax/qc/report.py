"""The QC report: what the mask builder reads on top, what a person reads below.

Front matter and sections follow PyTC's report (`decoding/qc/affinity.py`), so either
program builds a mask from the other's. Ours adds plots, says where the search of the cuts
was saturated, and prints the reference's figures beside.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from nisbjax.qc.cuts import Cuts
from nisbjax.qc.front_matter import FrontMatter
from nisbjax.qc.statistics import Statistics

_CHANNEL_NAMES = "xyz"
_FEW = 100  # background voxels in the ring below which a row says nothing


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a report is about, for its lines.

    Attributes:
      prediction: path.
      shape: c x y z.
      dtype: of the values.
      image: path; "" for none.
      plots: names of PNG files beside the report.
      absent_chunks: what there is to say of chunks of the prediction that are not there.
    """

    prediction: str
    shape: tuple[int, ...]
    dtype: str
    image: str
    plots: tuple[str, ...] = ()
    absent_chunks: str = ""


def text(
    front: FrontMatter,
    subject: Subject,
    statistics: Statistics,
    cuts: Cuts,
    section: Mapping[str, Any],
) -> str:
    """A report, as Markdown.

    Args:
      front: for the mask builder.
      subject: what was looked at.
      statistics: of all planes.
      cuts: derived from them.
      section: `qc`: z_stride, refine_window, drift_thresh and auto_extend of the cuts.
    """
    lines = [*front.lines(), "", "# Affinity check report", ""]
    shape = " x ".join(map(str, subject.shape))
    lines += [f"- pred: `{subject.prediction}` ({shape}, {subject.dtype})"]
    if subject.absent_chunks:
        lines.append(f"- {subject.absent_chunks}")
    lines += [f"- img: `{subject.image}`" if subject.image else "- img: none"]
    if front.box:
        lines.append(
            f"- part: {front.box} of {front.volume_shape.replace(',', ' x ')} voxels; planes "
            "are counted from its first one, and the ring lies along the faces of the whole"
        )
    lines.append("")
    lines += _health(statistics, cuts)
    lines += _z_cuts(cuts, subject.shape[3], section)
    lines += _border(front, statistics)
    if subject.plots:
        lines += ["## Plots", ""]
        lines += [f"![{name}]({name})\n" for name in subject.plots]
    return "\n".join(lines)


def channel_name(channel: int) -> str:
    """x, y, z of the short-range affinities; the number of any other channel."""
    return _CHANNEL_NAMES[channel] if channel < 3 else str(channel)


def _health(statistics: Statistics, cuts: Cuts) -> list[str]:
    planes = statistics.planes
    at = list(cuts.sampled)
    voxels = statistics.shape[0] * statistics.shape[1]
    lines = ["## Volume health", ""]
    lines += [
        (
            f"- voxels: {voxels * statistics.shape[2]:,} in each channel, all of them read; "
            f"{voxels * len(at):,} in the {len(at)} sampled planes"
        ),
        (
            f"- NaN: {int(planes.nan.sum()):,}, Inf: {int(planes.inf.sum()):,} (left out of "
            "all figures below)"
        ),
        "",
        "| channel | mean | std | min | max |",
        "| --- | --- | --- | --- | --- |",
    ]
    means = []
    for c in range(planes.count.shape[0]):
        count = planes.count[c, at].sum()
        mean = planes.total[c, at].sum() / count if count else np.nan
        variance = planes.squares[c, at].sum() / count - mean**2 if count else np.nan
        means.append(mean)
        lines.append(
            f"| {channel_name(c)} | {mean:.4f} | {np.sqrt(max(variance, 0)):.4f} | "
            f"{planes.low[c, at].min():.4f} | {planes.high[c, at].max():.4f} |"
        )
    spread = max(means) - min(means)
    verdict = "OK" if spread < 0.05 else "imbalanced"
    return [*lines, "", f"- channel-mean spread: {spread:.4f} ({verdict})", ""]


def _z_cuts(cuts: Cuts, depth: int, section: Mapping[str, Any]) -> list[str]:
    lines = [f"## Derived Z cuts (drift_thresh={section['drift_thresh']:g})", ""]
    lines += ["| channel | interior mean | cutoff |", "| --- | --- | --- |"]
    for c, (mean, cutoff) in enumerate(
        zip(cuts.interior_mean, cuts.cutoff, strict=True)
    ):
        lines.append(f"| {channel_name(c)} | {mean:.4f} | {cutoff:.4f} |")
    window = section["refine_window"]
    lines += ["", f"- low_z: {cuts.low_z}, high_z: {cuts.high_z} of {depth} planes"]
    for end, saturated in (("low", cuts.saturated_low), ("high", cuts.saturated_high)):
        if saturated:
            lines.append(
                f"- {end}_z **saturated**: none of the {'first' if end == 'low' else 'last'} "
                f"{window} planes passes; "
                + (
                    "the search went on until one did"
                    if section["auto_extend"]
                    else "the true bad range is unknown (qc.auto_extend searches on)"
                )
            )
    lines.append(
        f"- the reference's search of {window} planes at each end says low_z "
        f"{cuts.reference_low_z}, high_z {cuts.reference_high_z}"
    )
    if not cuts.usable:
        lines.append("- **no plane passes in all channels**: nothing would be kept")
    if cuts.bad_inside:
        lines.append(
            f"- {len(cuts.bad_inside)} planes between the cuts do not pass and are kept: "
            + _ranges(cuts.bad_inside)
        )
    return [*lines, ""]


def _ranges(planes: tuple[int, ...], most: int = 20) -> str:
    """`3, 7-9, 12`; at most so many pieces."""
    pieces: list[list[int]] = []
    for z in planes:
        if pieces and pieces[-1][1] == z - 1:
            pieces[-1][1] = z
        else:
            pieces.append([z, z])
    text = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in pieces[:most])
    return text + (f" and {len(pieces) - most} more" if len(pieces) > most else "")


def _border(front: FrontMatter, statistics: Statistics) -> list[str]:
    lines = [
        (
            f"## XY-border + intensity (border_width={front.border_width}, "
            f"bg_thresh={front.bg_thresh:g})"
        ),
        "",
    ]
    border, samples = statistics.border, statistics.samples
    if border is None or samples is None:
        return [*lines, "WARN: no image of the prediction's shape; skipped", ""]
    lines += ["```", "    z  ch  ring bg n  ring mean  ring q95  ring >.5  inside mean"]
    for row, z in enumerate(border.z):
        for c in range(samples.inside_total.shape[1]):
            ring = samples.ring[row][c]
            head = f"{z:5d}  {channel_name(c):>2}  {ring.total:9d}"
            if ring.total < _FEW:
                lines.append(f"{head}  too few")
                continue
            lines.append(
                f"{head}  {ring.mean:9.4f}  {ring.quantile(0.95):8.4f}  "
                f"{ring.share_above(0.5):8.4f}  {samples.inside_mean(row, c):11.4f}"
            )
    return [*lines, "```", ""]
