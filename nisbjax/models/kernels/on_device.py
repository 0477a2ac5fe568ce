"""Which kernels a network takes on the devices of a run: as `model.kernels` says.

Source: none; PyTC and BANIS have `torch.compile` and cuDNN's `benchmark`, which choose anew at
each start. We differ: one process chooses for all, what was measured is kept, and a run that
goes on takes what it began with, since its bytes depend on it.
"""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging

from nisbjax.errors import InputError
from nisbjax.models.kernels import measure, table
from nisbjax.models.kernels.choice import Candidate, Kernels, Recorder, Use
from nisbjax.parallel import hosts
from nisbjax.store import files

NOTED = "kernels"  # in a run's environment.json
_MOST_BYTES = 1 << 24


def on_gpu() -> bool:
    """Whether this process computes on GPUs."""
    return jax.local_devices()[0].platform == "gpu"


def require_device(word: str) -> None:
    """Refuses kernels that there are none of here.

    Args:
      word: of `model.kernels`.

    Raises:
      InputError: Pallas kernels, and no GPU.
    """
    if word == "pallas" and not on_gpu():
        raise InputError(
            f"model.kernels is 'pallas', but the devices are {jax.default_backend()} "
            f"({jax.local_devices()[0].device_kind}); set it to auto"
        )


def kernels_for(
    word: str,
    record: Callable[[Recorder], Any],
    recorded: Mapping[str, Any] | None = None,
) -> Kernels | None:
    """The choice for what a network computes; all processes of a run must ask.

    Args:
      word: of `model.kernels`.
      record: traces the network with what it is given, under `jax.eval_shape`.
      recorded: what `noted` gave when the run began, as JSON has it; None for a new one.

    Returns:
      None where XLA computes all, as without kernels: on a CPU, or as the word says.

    Raises:
      InputError: see `require_device`.
    """
    require_device(word)
    if word == "xla" or not on_gpu():
        return None
    recorder = Recorder()
    record(recorder)

    def decide() -> str:
        return json.dumps(table.noted({}, _chosen(word, recorder, recorded)))

    chosen = table.of_these(json.loads(hosts.first_decides(decide)), {})
    return Kernels(tuple((use, chosen[use]) for use in recorder.uses))


def noted(word: str, kernels: Kernels | None) -> dict[str, Any]:
    """What a run's `environment.json` says of a choice; nothing where there is none."""
    if kernels is None:
        return {}
    return {NOTED: table.noted(table.facts(word), dict(kernels.chosen))}


def recorded_in(environment: str | os.PathLike) -> dict[str, Any] | None:
    """What `noted` gave, out of a run's `environment.json`; None where there is nothing."""
    path = pathlib.Path(environment)
    if not path.exists():
        return None
    try:
        said = json.loads(files.read_bytes(path, _MOST_BYTES))
    except table.UNREADABLE as error:
        logging.warning("%s cannot be read (%s)", path, error)
        return None
    found = said.get(NOTED) if isinstance(said, dict) else None
    return found if isinstance(found, dict) else None


def _chosen(
    word: str, recorder: Recorder, recorded: Mapping[str, Any] | None
) -> dict[Use, Candidate]:
    """A candidate for each use: recorded, kept from another start, or measured now."""
    known = table.facts(word)
    wanted = {
        use: recorder.operations[use.operation].candidates(use) for use in recorder.uses
    }
    chosen: dict[Use, Candidate] = {}

    def take(found: table.Choices) -> None:
        for use, candidates in wanted.items():
            if use not in chosen and found.get(use) in candidates:
                chosen[use] = found[use]

    if recorded is not None:
        try:
            take(table.of_these(recorded, known))
        except table.UNREADABLE as error:
            logging.warning(
                "the run's kernels are measured anew (%s); its last bits may change",
                error,
            )
    path = table.cached(known)
    if len(chosen) < len(wanted):
        kept = table.read(path, known)
        take(kept)
        missing = [use for use in wanted if use not in chosen]
        if missing:
            measured = measure.choose(
                recorder.operations,
                missing,
                table.shipped(known["device"]),
                pallas=word == "pallas",
            )
            table.write(path, known, {**kept, **measured.final})
            take(measured.fastest)
    return {use: chosen.get(use, candidates[0]) for use, candidates in wanted.items()}
