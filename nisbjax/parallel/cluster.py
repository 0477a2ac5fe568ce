"""Drives `work(box)` over many boxes: threads here, or Dask processes.

A worker owns disjoint output boxes and reads its own halo, so nothing is locked and the
order of completion does not matter; results come back in the order of the boxes. BANIS
groups windows by 1024^3 and adds them into a shared zarr under a file lock instead.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.util
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from nisbjax.console.progress import Progress
from nisbjax.errors import InputError
from nisbjax.store import records
from nisbjax.store.schema import text

T = TypeVar("T")
KINDS = ("threads", "local", "dask")
_PATIENCE_SECONDS = 300


class Workers:
    """Those who do `work(box)`, from entering the context to leaving it.

    Args:
      kind: `threads`, `local` (a Dask LocalCluster of spawned processes) or `dask` (a
        scheduler's address).
      workers: how many; 0 for one for each core; for `dask`, how many to wait for.
      address: of the scheduler, for `dask`: tcp://host:port, tls://host:port (with
        certificates by Dask's own configuration), or its scheduler file.

    Raises:
      InputError: an unknown kind, `dask` without an address, a scheduler that does not
        answer (within Dask's `distributed.comm.timeouts.connect`) or to which too few
        workers come in five minutes, or Dask is not installed.
    """

    def __init__(self, kind: str = "threads", workers: int = 0, address: str = ""):
        check_cluster(kind, address)
        self._kind, self._address = kind, address
        own = 1 if kind == "dask" else len(os.sched_getaffinity(0))
        self._count = workers or own

    def __enter__(self) -> "Workers":  # noqa: PYI034 (jaxtyping cannot read Self)
        with contextlib.ExitStack() as opened:
            if self._kind == "threads":
                pool = concurrent.futures.ThreadPoolExecutor(self._count)
                self._submit = opened.enter_context(pool).submit
                self._bound = 2 * self._count
            else:
                client = _dask_client(self._kind, self._count, self._address)
                client = opened.enter_context(client)
                self._submit = functools.partial(client.submit, pure=False)
                if self._kind == "dask":
                    _wait(client, self._count, self._address)
                self._bound = 2 * max(1, len(client.scheduler_info()["workers"]))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def map(
        self, work: Callable[[Any], T], boxes: Sequence[Any], description: str = ""
    ) -> Iterator[T]:
        """Yields `work(box)` for every box, in the order of the boxes.

        At most twice as many boxes as workers are under way, so results do not pile up.
        The first exception ends the iteration and is raised; boxes under way are finished
        first.

        Args:
          work: picklable for `local` and `dask`.
          boxes: anything, usually `geometry.Box`.
          description: of the work, for its progress; "" to say nothing.
        """
        if self._kind != "threads":
            work = _Told(work)
        with Progress(description, len(boxes), "boxes") as progress:
            yield from _windowed(self._submit, work, boxes, self._bound, progress)


class _Refusal(NamedTuple):
    text: str
    notes: tuple[str, ...]

    def error(self) -> InputError:
        error = InputError(self.text)
        for note in self.notes:
            error.add_note(note)
        return error


@dataclasses.dataclass(frozen=True)
class _Told:
    """`work` in another process, whose refusals come back as text.

    Dask pickles an error together with those that it arose from, in spite of `from None`;
    where one of them cannot be pickled (a codec's), something else arrives.
    """

    work: Callable[[Any], Any]

    def __call__(self, box: Any) -> Any:
        try:
            return self.work(box)
        except InputError as error:
            return _Refusal(str(error), tuple(getattr(error, "__notes__", ())))


def map_boxes(
    work: Callable[[Any], T],
    boxes: Sequence[Any],
    *,
    kind: str = "threads",
    workers: int = 0,
    address: str = "",
    description: str = "",
) -> Iterator[T]:
    """`Workers(kind, workers, address).map(work, boxes)` by workers of its own.

    Raises:
      InputError: as `Workers`.
    """
    with Workers(kind, workers, address) as team:
        yield from team.map(work, boxes, description)


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


def _believed(result: Any) -> Any:
    if isinstance(result, _Refusal):
        raise result.error()
    return result


def _windowed(submit, work, boxes, bound, progress):
    pending = []
    remaining = iter(boxes)
    try:
        for box in remaining:
            pending.append(submit(work, box))
            if len(pending) >= bound:
                result = _believed(pending.pop(0).result())
                progress.update()
                yield result
        while pending:
            result = _believed(pending.pop(0).result())
            progress.update()
            yield result
    finally:
        for future in pending:
            future.cancel()


def _dask_client(kind: str, workers: int, address: str):
    import distributed

    if kind == "dask":
        return _connect(address)
    # Spawned, never forked: a forked process that has TensorStore open hangs.
    # A cluster that the client makes itself ends with it.
    return distributed.Client(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
    )


def _connect(address: str):
    import distributed
    from dask import config, utils

    within = config.get("distributed.comm.timeouts.connect")
    seconds = utils.parse_timedelta(within, default="s")
    try:
        found = _file_address(address) if address.endswith(".json") else address
        # In a thread, for a notebook's own runs a loop already.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, _knock(found, seconds)).result()
        return distributed.Client(found, timeout=seconds)
    except TimeoutError:
        text = f"something listens and says nothing in {seconds:g} s"
    # The last is Dask's own for TLS without certificates.
    except (OSError, ValueError, TypeError) as error:
        text = " ".join(str(error).split())
    raise InputError(
        f"no Dask scheduler answers at {address} ({text}); wanted its tcp://host:port or "
        "scheduler file: is it started, and can this machine reach it?"
    )


def _file_address(path: str) -> str:
    """The address in a scheduler's file, for which Dask itself waits without end."""
    if not pathlib.Path(path).is_file():
        raise OSError("no such file")
    return records.read_json(path, {"address": text()})["address"]


async def _knock(address: str, seconds: float) -> None:
    """Connects and leaves: Dask's client waits without end for a greeting."""
    from distributed.comm.core import connect
    from distributed.security import Security

    arguments = Security().get_connection_args("client")
    greeted = connect(address, timeout=seconds, **arguments)
    await (await asyncio.wait_for(greeted, seconds + 0.5)).close()


def _wait(client: Any, count: int, address: str) -> None:
    try:
        client.wait_for_workers(count, timeout=_PATIENCE_SECONDS)
    except TimeoutError:
        raise InputError(
            f"{len(client.scheduler_info()['workers'])} of {count} workers came to {address} in "
            f"{_PATIENCE_SECONDS} s; start them, or set --config.cluster.workers"
        ) from None
