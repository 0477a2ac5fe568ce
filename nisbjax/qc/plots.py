"""The report's pictures: means over z with the cuts, planes at the cuts, the border.

PyTC's report is text alone; whether a cut is right is seen faster.
"""

import os
import pathlib

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nisbjax.geometry import Box
from nisbjax.qc.cuts import Cuts
from nisbjax.qc.report import channel_name
from nisbjax.qc.statistics import Statistics
from nisbjax.volume import Volume

_COLOURS = ("tab:red", "tab:green", "tab:blue")
_PIXELS = 384  # of a plane on each side, at most


def draw_all(
    report: pathlib.Path,
    prediction: Volume | None,
    statistics: Statistics,
    cuts: Cuts,
) -> tuple[str, ...]:
    """Writes the PNG files of a report beside it.

    Args:
      report: path of the report; `<stem>.<what>.png` are written.
      prediction: for the planes at the cuts; None leaves them out.
      statistics: of all planes.
      cuts: derived from them.

    Returns:
      The files' names.
    """
    figures = {"planes": _means(statistics, cuts)}
    if prediction is not None:
        figures["cuts"] = _planes_at_cuts(prediction, cuts)
    if statistics.border is not None:
        figures["border"] = _ring_against_inside(statistics)
    names = []
    report.parent.mkdir(parents=True, exist_ok=True)
    for what, figure in figures.items():
        path = report.with_name(f"{report.stem}.{what}.png")
        temporary = path.with_name(path.name + ".partial")
        figure.savefig(temporary, dpi=100, format="png")
        os.replace(temporary, path)
        names.append(path.name)
    return tuple(names)


def _colour(channel: int) -> str:
    return _COLOURS[channel] if channel < 3 else "tab:gray"


def _means(statistics: Statistics, cuts: Cuts) -> Figure:
    planes = statistics.planes
    figure = Figure(figsize=(9, 5), layout="constrained")
    means, spreads = figure.subplots(2, 1, sharex=True)
    for c in range(planes.count.shape[0]):
        style = {"color": _colour(c), "linewidth": 1}
        means.plot(planes.mean[c], label=f"channel {channel_name(c)}", **style)
        means.axhline(cuts.cutoff[c], color=_colour(c), linestyle=":", linewidth=1)
        spreads.plot(planes.std[c], **style)
    for axes in (means, spreads):
        for z in (cuts.low_z, cuts.high_z):
            axes.axvline(z - 0.5, color="black", linewidth=1)
    means.set_ylabel("mean affinity (dotted: cutoff)")
    spreads.set_ylabel("standard deviation")
    spreads.set_xlabel(f"z; kept are {cuts.low_z} to {cuts.high_z - 1}")
    means.legend(loc="lower center", ncols=4, fontsize="small")
    return figure


def _planes_at_cuts(prediction: Volume, cuts: Cuts) -> Figure:
    """The last plane cut and the first plane kept at each end, mean of the channels."""
    depth = prediction.spatial_shape[2]
    wanted = (cuts.low_z - 1, cuts.low_z, cuts.high_z - 1, cuts.high_z)
    titles = ("outside", "inside", "inside", "outside")
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for axes, z, title in zip(figure.subplots(1, 4), wanted, titles, strict=True):
        axes.set_axis_off()
        axes.set_title(f"z = {z} ({title})" if 0 <= z < depth else "no plane outside")
        if 0 <= z < depth:
            _show(axes, prediction, z)
    return figure


def _show(axes: Axes, prediction: Volume, z: int) -> None:
    width, height, _ = prediction.spatial_shape
    step = max(1, -(-max(width, height) // _PIXELS))
    rows = []
    chunk = max(prediction.spatial_chunks[0] // step, 1) * step
    for x in range(0, width, chunk):
        box = Box((x, 0, z), (min(x + chunk, width), height, z + 1))
        values = prediction.read(box)[:, ::step, ::step, 0].astype(np.float32)
        rows.append(values.mean(0))
    plane = np.concatenate(rows)
    top = 255 if prediction.dtype == np.uint8 else 1
    axes.imshow(plane.T, cmap="gray", vmin=0, vmax=top, interpolation="nearest")


def _ring_against_inside(statistics: Statistics) -> Figure:
    border, samples = statistics.border, statistics.samples
    assert border is not None and samples is not None
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots()
    for c in range(samples.inside_total.shape[1]):
        rings = [samples.values(row, c) for row in range(len(border.z))]
        rings = [values[np.isfinite(values)] for values in rings]
        ring = [float(v.mean()) if v.size else np.nan for v in rings]
        count = np.where(samples.inside_count[:, c], samples.inside_count[:, c], np.nan)
        style = {"color": _colour(c), "marker": "o", "linewidth": 1}
        axes.plot(border.z, ring, label=f"{channel_name(c)} in the ring", **style)
        axes.plot(border.z, samples.inside_total[:, c] / count, linestyle=":", **style)
    axes.set_xlabel(
        f"z; background is at most {border.thresh:g}, the ring {border.width} voxels wide"
    )
    axes.set_ylabel("mean affinity of background\n(dotted: inside the ring)")
    axes.legend(fontsize="small")
    return figure
