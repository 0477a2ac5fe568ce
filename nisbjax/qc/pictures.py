"""The report's pictures: means over z with the cuts, planes at the cuts, the border.

PyTC's report is text alone; whether a cut is right is seen faster.
"""

import pathlib

import numpy as np
from absl import logging
from jaxtyping import Float64

from nisbjax.geometry import Box
from nisbjax.qc import end_planes
from nisbjax.qc.cuts import Cuts
from nisbjax.qc.report import channel_name
from nisbjax.qc.statistics import Statistics
from nisbjax.store import figures
from nisbjax.store.figures import Figure
from nisbjax.store.volume import Volume

_POINTS = 1024  # of a curve, at most twice
_COLOURS = ("tab:red", "tab:green", "tab:blue")


_KINDS = ("planes", "cuts", "border")


def paths(report: pathlib.Path) -> dict[str, pathlib.Path]:
    """Where the PNG files of a report lie, whether or not there is something to draw."""
    return {kind: report.with_name(f"{report.stem}.{kind}.png") for kind in _KINDS}


def draw_all(
    report: pathlib.Path,
    prediction: Volume,
    statistics: Statistics,
    cuts: Cuts,
) -> tuple[str, ...]:
    """Writes the PNG files of a report beside it.

    Args:
      report: path of the report; `<stem>.<what>.png` are written.
      prediction: read only where a cut lies deeper than the pictures that were kept.
      statistics: of all planes.
      cuts: derived from them.

    Returns:
      The files' names.
    """
    drawn = {
        "planes": _means(statistics, cuts),
        "cuts": _planes_at_cuts(prediction, statistics, cuts),
    }
    if statistics.border is not None:
        drawn["border"] = _ring_against_inside(statistics)
    names = []
    for what, figure in drawn.items():
        path = paths(report)[what]
        figures.save(figure, path, dpi=100)
        names.append(path.name)
    return tuple(names)


def _colour(channel: int) -> str:
    return _COLOURS[channel] if channel < 3 else "tab:gray"


def _means(statistics: Statistics, cuts: Cuts) -> Figure:
    planes = statistics.planes
    figure = figures.figure(figsize=(9, 5), layout="constrained")
    means, spreads = figure.subplots(2, 1, sharex=True)
    for c in range(planes.count.shape[0]):
        style = {"color": _colour(c), "linewidth": 1}
        means.plot(*_curve(planes.mean[c]), label=f"channel {channel_name(c)}", **style)
        means.axhline(cuts.cutoff[c], color=_colour(c), linestyle=":", linewidth=1)
        spreads.plot(*_curve(planes.std[c]), **style)
    for axes in (means, spreads):
        for z in (cuts.low_z, cuts.high_z):
            axes.axvline(z - 0.5, color="black", linewidth=1)
    means.set_ylabel("mean affinity (dotted: cutoff)")
    spreads.set_ylabel("standard deviation")
    said = (
        f"kept are {cuts.low_z} to {cuts.high_z - 1}" if cuts.usable else "none is kept"
    )
    spreads.set_xlabel(f"z; {said}")
    means.legend(loc="lower center", ncols=4, fontsize="small")
    return figure


def _curve(
    values: Float64[np.ndarray, " z"],
) -> tuple[Float64[np.ndarray, " p"], Float64[np.ndarray, " p"]]:
    """Points of a curve over z: its lowest and highest of every few planes, if many."""
    group = -(-values.size // _POINTS)
    if group == 1:
        return np.arange(values.size, dtype=np.float64), values
    padded = np.full(-(-values.size // group) * group, np.nan)
    padded[: values.size] = values
    groups = padded.reshape(-1, group)
    # A group without a finite mean leaves a gap in the curve.
    least = np.where(np.isnan(groups), np.inf, groups).min(1)
    most = np.where(np.isnan(groups), -np.inf, groups).max(1)
    points = np.stack([least, most], axis=1)
    z = np.arange(len(groups)) * float(group)
    return np.repeat(z, 2), np.where(np.isfinite(points), points, np.nan).ravel()


def _planes_at_cuts(prediction: Volume, statistics: Statistics, cuts: Cuts) -> Figure:
    """The last plane cut and the first plane kept at each end, mean of the channels."""
    depth = statistics.shape[2]
    wanted = (cuts.low_z - 1, cuts.low_z, cuts.high_z - 1, cuts.high_z)
    titles = ("outside", "inside", "inside", "outside")
    figure = figures.figure(figsize=(12, 3.4), layout="constrained")
    for axes, z, title in zip(figure.subplots(1, 4), wanted, titles, strict=True):
        axes.set_axis_off()
        if not 0 <= z < depth or (title == "inside" and not cuts.usable):
            axes.set_title(f"no plane {title}")
            continue
        axes.set_title(f"z = {z} ({title})")
        plane = _picture(prediction, statistics, z)
        axes.imshow(plane.T, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    return figure


def _picture(prediction: Volume, statistics: Statistics, z: int) -> np.ndarray:
    """One plane, coarsely; read again only where a cut lies deeper than what was kept."""
    channels = statistics.planes.count.shape[0]
    row = end_planes.row_of(z, statistics.shape[2])
    if row is not None:
        return statistics.pictures[row] / channels
    logging.info("reading plane %d for its picture: the cut lies deep", z)
    width, height, _ = shape = statistics.shape
    step = end_planes.step_of(shape)
    rows = []
    chunk = max(prediction.spatial_chunks[0] // step, 1) * step
    for x in range(0, width, chunk):
        box = Box((x, 0, z), (min(x + chunk, width), height, z + 1))
        values = prediction.read(box)[:, ::step, ::step, 0].astype(np.float32)
        rows.append(values.mean(0) * (1 if prediction.dtype == np.uint8 else 255))
    return np.concatenate(rows)


def _ring_against_inside(statistics: Statistics) -> Figure:
    border, samples = statistics.border, statistics.samples
    assert border is not None and samples is not None
    figure = figures.figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots()
    for c in range(samples.inside_total.shape[1]):
        rows = range(len(border.z))
        ring = [samples.ring[row][c].mean for row in rows]
        inside = [samples.inside_mean(row, c) for row in rows]
        style = {"color": _colour(c), "marker": "o", "linewidth": 1}
        axes.plot(border.z, ring, label=f"{channel_name(c)} in the ring", **style)
        axes.plot(border.z, inside, linestyle=":", **style)
    axes.set_xlabel(
        f"z; background is at most {border.thresh:g}, the ring {border.width} voxels wide"
    )
    axes.set_ylabel("mean affinity of background\n(dotted: inside the ring)")
    axes.legend(fontsize="small")
    return figure
