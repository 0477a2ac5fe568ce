"""What a device did during some steps, from the trace that `jax.profiler` writes.

Kernels are counted by the operation that asked for them. Command buffers must be off
(XLA_FLAGS=--xla_gpu_enable_command_buffer=), or a trace names most of them command_buffer_444.
"""

import glob
import gzip
import json
import pathlib
from typing import Any

# A word in the name of the operation that a kernel came from, and what it is part of; the
# first that is found counts.
SOURCES = {
    "augment": "augmentation and targets",
    "affine": "augmentation and targets",
    "erode": "augmentation and targets",
    "erosion": "augmentation and targets",
    "adam": "optimizer",
    "ema": "optimizer",
    "loss": "loss",
    "weight_gradient": "depthwise, gradient by the kernel",
    "_reduce_each_tap": "depthwise, gradient by the kernel",
    "_gathered": "depthwise",
    "sum_taps": "depthwise",
    "_scattered": "depthwise",
    "scatter_phases": "depthwise",
    "interleave": "interleaving",
    "_mlp_gradients": "pointwise, gradients",
    "_mlp": "pointwise",
    "pointwise": "pointwise",
    "moments": "moments",
    "pallas": "other Pallas kernels",
    "conv_general": "other convolutions",
    "dot_general": "other products",
    "transpose": "other copies",
    "copy": "other copies",
}


def load(folder: str | pathlib.Path) -> list[dict[str, Any]]:
    """Events of the newest trace below a folder; none where there is no trace."""
    found = sorted(glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True))
    if not found:
        return []
    with gzip.open(found[-1]) as file:
        return json.load(file)["traceEvents"]


def kernels(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name, source and microseconds of each kernel that ran on a stream of a GPU."""
    names: dict[tuple, str] = {}
    for event in events:
        if event.get("ph") == "M" and event.get("name") in (
            "process_name",
            "thread_name",
        ):
            thread = event.get("tid") if event["name"] == "thread_name" else None
            names[event["pid"], thread] = event["args"]["name"]
    found = []
    for event in events:
        on_gpu = "GPU" in names.get((event.get("pid"), None), "")
        stream = names.get((event.get("pid"), event.get("tid")), "")
        if event.get("ph") != "X" or not on_gpu or "Stream" not in stream:
            continue
        said = event.get("args", {})
        found.append(
            {
                "name": said.get("hlo_op") or said.get("name") or event["name"],
                "kernel": event["name"],
                "source": said.get("tf_op") or said.get("long_name") or "",
                "us": event.get("dur", 0.0),
            }
        )
    return found


def part_of(kernel: dict[str, Any]) -> str:
    """What a kernel is part of, by `SOURCES`."""
    said = f"{kernel['source']} {kernel['kernel']}"
    return next((part for word, part in SOURCES.items() if word in said), "others")


def summary(ran: list[dict[str, Any]], steps: int, most: int = 25) -> dict[str, Any]:
    """Device milliseconds of a step: all of it, by part, and of its longest kernels.

    Args:
      ran: as `kernels` gives them.
      steps: that the trace holds.
      most: kernels that are told one by one.
    """
    parts: dict[str, float] = {}
    single: dict[tuple[str, str], list[float]] = {}
    for kernel in ran:
        part = part_of(kernel)
        parts[part] = parts.get(part, 0.0) + kernel["us"]
        key = kernel["name"], kernel["source"][-110:]
        single.setdefault(key, []).append(kernel["us"])
    longest = sorted(single.items(), key=lambda item: -sum(item[1]))[:most]
    return {
        "device_ms": _ms(sum(parts.values()), steps),
        "kernels": len(ran) // steps,
        "parts": {
            part: _ms(us, steps)
            for part, us in sorted(parts.items(), key=lambda item: -item[1])
        },
        "longest": [
            {
                "ms": _ms(sum(us), steps),
                "times": len(us) // steps,
                "name": name,
                "source": source,
            }
            for (name, source), us in longest
        ],
    }


def _ms(us: float, steps: int) -> float:
    return round(us / steps / 1e3, 3)
