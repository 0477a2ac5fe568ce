"""Drives `work(box)` over many boxes: threads here, or Dask processes.

A worker owns disjoint output boxes and reads its own halo, so nothing is locked and the
order of completion does not matter; results come back in the order of the boxes. BANIS
groups windows by 1024^3 and adds them into a shared zarr under a file lock instead.
"""

import concurrent.futures
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

from nisbjax.errors import InputError

T = TypeVar("T")
KINDS = ("threads", "local", "dask")


def map_boxes(
    work: Callable[[Any], T],
    boxes: Sequence[Any],
    *,
    kind: str = "threads",
    workers: int = 0,
    address: str = "",
    description: str = "",
) -> Iterator[T]:
    """Yields `work(box)` for every box, in the order of the boxes.

    At most twice as many boxes as workers are under way, so results do not pile up. The
    first exception ends the iteration and is raised; boxes under way are finished first.

    Args:
      work: picklable for `local` and `dask`.
      boxes: anything, usually `geometry.Box`.
      kind: `threads`, `local` (a Dask LocalCluster of spawned processes) or `dask` (a
        scheduler's address).
      workers: how many; 0 for one for each core (of `threads` and `local`).
      address: of the scheduler, for `dask`: tcp://host:port, tls://host:port (with
        certificates by Dask's own configuration), or its scheduler file.
      description: of the progress bar, which is silent off a terminal.

    Raises:
      InputError: an unknown kind, `dask` without an address, or Dask is not installed.
    """
    check_cluster(kind, address)
    workers = workers or len(os.sched_getaffinity(0))
    with tqdm(total=len(boxes), desc=description, disable=None, unit="box") as bar:
        if kind == "threads":
            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                yield from _windowed(pool.submit, work, boxes, 2 * workers, bar)
            return
        with _dask_client(kind, workers, address) as client:
            submit = lambda f, box: client.submit(f, box, pure=False)
            bound = 2 * max(1, len(client.scheduler_info()["workers"]))
            yield from _windowed(submit, work, boxes, bound, bar)


def check_cluster(kind: str, address: str) -> None:
    """Refuses what `map_boxes` refuses, before there is any work.

    Raises:
      InputError: as there.
    """
    if kind not in KINDS:
        raise InputError(f"cluster.kind is {kind!r}; wanted one of {', '.join(KINDS)}")
    if kind != "threads" and importlib.util.find_spec("distributed") is None:
        raise InputError(
            f"cluster.kind={kind} needs Dask; pip install 'nisbjax[cluster]'"
        )
    if kind == "dask" and not address:
        raise InputError(
            "cluster.kind=dask needs --config.cluster.address, the scheduler's "
            "tcp://host:port or its scheduler file"
        )


def _windowed(submit, work, boxes, bound, bar):
    pending = []
    remaining = iter(boxes)
    try:
        for box in remaining:
            pending.append(submit(work, box))
            if len(pending) >= bound:
                result = pending.pop(0).result()
                bar.update()
                yield result
        while pending:
            result = pending.pop(0).result()
            bar.update()
            yield result
    finally:
        for future in pending:
            future.cancel()


def _dask_client(kind: str, workers: int, address: str):
    import distributed

    if kind == "dask":
        if address.endswith(".json"):  # written by `dask scheduler --scheduler-file`
            return distributed.Client(scheduler_file=address)
        return distributed.Client(address)
    # Spawned, never forked: a forked process that has TensorStore open hangs.
    # A cluster that the client makes itself ends with it.
    return distributed.Client(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
    )
