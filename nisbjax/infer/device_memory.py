"""What a device's memory leaves for sums, beside the network.

The host's share is a key (`predict.memory_gb`); a GPU's memory belongs to this process, so what
the network does not take is free for sums. PyTC and BANIS sum on the host and leave it empty.
"""

from typing import Any

_KEPT = 0.9  # of what is left: memory in pieces cannot be had whole


def device_bytes(
    program: Any, arguments: tuple[Any, ...], device: Any, parts: int
) -> int | None:
    """Bytes for sums on the device that adds; None where its memory is the host's.

    That is nine tenths of the device's limit, less what is in use now, less the network's
    need: its temporary arrays, and answers and images of three batches (one is added while
    the next is computed and a third is begun); answers of all devices come here.

    Args:
      program: compiled for the sizes of `arguments`, which the later call finds.
      arguments: of `program`; what lies on the device counts as in use.
      device: on which windows are added.
      parts: devices that compute a batch together.
    """
    free = free_bytes(device)
    if free is None:
        return None
    need = program.lower(*arguments).compile().memory_analysis()
    images = arguments[-1]
    sent = images.size * images.dtype.itemsize // parts
    network = need.temp_size_in_bytes + 3 * (parts * need.output_size_in_bytes + sent)
    return int(_KEPT * (free - network))


def free_bytes(device: Any) -> int | None:
    """What of a device's memory is not in use; None where that is the host's."""
    stats = device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats["bytes_in_use"]
