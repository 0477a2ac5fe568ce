"""Mode check: what a night of training, tuning and testing would run into, before it.

Whatever a mode refuses before it works is asked here, all of it at once: keys, volumes,
skeletons, network, prediction, decoder, scores. Nothing is begun and nothing changed. PyTC
and BANIS have nothing of the kind; their faults come up one by one, each after its stage.
"""

from typing import Any

from absl import logging

from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint
from nisbjax.errors import InputError
from nisbjax.keys import ranges
from nisbjax.keys.checks import optional
from nisbjax.modes import check_crops, check_data, check_estimates, check_stages
from nisbjax.modes.findings import Findings
from nisbjax.store import files
from nisbjax.typing import Config, Triple


def run(config: Config, run_dir: Run, checkpoint_path: str) -> Findings:
    """Mode check; prints what was found and writes it to the folder `check` of the run.

    Args:
      config: the configuration; its keys may be out of their ranges.
      run_dir: of a training that is to be, or that has begun; only `check` is written to.
      checkpoint_path: that the training starts from, or is tested; "" for the run's newest.

    Returns:
      What was found; nothing wrong among it.

    Raises:
      InputError: something is wrong; how much, and where the list stands.
    """
    place, found = run_dir.check, Findings()
    for path in (place.report, place.picture):
        files.require_file(path)
    keys = list(ranges.problems(config))
    for _, said in keys:
        found.refuse(said)
    table = ""
    if not keys:
        table = _look(config, run_dir, checkpoint_path, found)
    elif not any(key.startswith(("data.", "model.in")) for key, _ in keys):
        check_data.check(config, None, found)
    text = "\n\n".join(filter(None, (table, found.text())))
    if keys:
        text += "\n\nonce these keys are right, check again: the rest depends on them"
    files.write_text(place.report, text + "\n")
    if found.wrong:
        print(text)
        count = len(found.wrong)
        raise InputError(
            f"{count} {'thing is' if count == 1 else 'things are'} wrong, see the list "
            f"above ({place.report})"
        )
    print(text)
    return found


def _look(config: Config, run_dir: Run, checkpoint_path: str, found: Findings) -> str:
    """Everything, once each key holds what it may; the table of estimates."""
    from nisbjax.parallel import compilation_cache

    compilation_cache.begin()
    start = _checkpoint(config, run_dir, checkpoint_path, found)
    training = check_stages.Training.of(config, found)
    crop: Triple | None = training.crop if training else None
    readable = check_data.check(config, crop, found)
    if training is not None:
        check_stages.training(config, run_dir, training, start, found)
        if "train" in readable:
            check_crops.check(config, training.recipe, training.batch, run_dir, found)
    network = check_stages.network(config, start, found)
    if "test" in readable:
        check_stages.testing(config, run_dir, start, network, found)
    if "val" in readable:
        check_stages.study(config, run_dir, start, network, found)
    table = ""
    if network is not None:
        with found.asking():
            table = check_estimates.check(
                config, run_dir, start, network, readable, found
            )
    return table


def _checkpoint(
    config: Config, run_dir: Run, checkpoint_path: str, found: Findings
) -> Any:
    """The checkpoint that training starts from or goes on with; None for none."""
    named = optional(checkpoint_path)
    if not named and not checkpoint.numbered(run_dir.checkpoints):
        logging.info(
            "no checkpoint: the network is looked at as it is drawn from the seed"
        )
        return None
    with found.asking():
        items = checkpoint.weight_items(config.predict.weights)
        return checkpoint.find(named or run_dir.path, items)
    return None
