"""Tuning of the decoder on the validation volume: study, best parameters, curve.

PyTC's `tune` mode and BANIS's threshold loop; unlike PyTC's, a study is under the mask of
testing, says what it scored, goes on after a kill, and needs no skeletons.
"""

import time
from typing import Any

import optuna
from absl import logging

from nisbjax.artifacts import TuneDir
from nisbjax.console import quantities
from nisbjax.decode.methods import METHODS
from nisbjax.errors import require_choice
from nisbjax.evaluate import nodes
from nisbjax.keys.checks import optional
from nisbjax.store import absent_chunks, files, finished
from nisbjax.store.volume import Volume, open_affinities
from nisbjax.tune import best_params, place, storage, study
from nisbjax.tune.inputs import Inputs
from nisbjax.tune.label_scorer import LabelScorer
from nisbjax.tune.objective import WORDS, name_of, require_truth, settled
from nisbjax.tune.scorer import Decode, Scorer
from nisbjax.tune.space import Space
from nisbjax.typing import Section


def run(
    section: Section,
    decode: Any,
    out: TuneDir,
    inputs: Inputs,
    *,
    seed: int,
    decode_whole: Decode | None = None,
    redo: bool = False,
) -> dict[str, Any]:
    """Completes the study and writes `best_params.yaml` and `tune.png`.

    Run again, it evaluates only what is missing, and appends.

    Args:
      section: `tune`.
      decode: `decode`.
      out: the study's folder.
      inputs: of the validation volume, under the mask that testing applies; their truth
        is either skeletons or dense labels.
      seed: of a sampler.
      decode_whole: a whole decode with other values of `decode.*`, for what neither the
        one pass nor the chain's tables know: dense labels, other methods, `min_size`,
        joins, and other parameters in `tune.space`.
      redo: a study of ours that is there is replaced, whatever it scored.

    Returns:
      What `best_params.yaml` holds.

    Raises:
      InputError: inputs that are missing or do not fit, a study that is damaged, busy or
        of other inputs, or trials that failed.
    """
    started = time.monotonic()
    space = check(section, decode)
    finished.require_finished(inputs.prediction)
    affinities = open_affinities(inputs.prediction)
    absent_chunks.say(affinities)
    objective = _objective(section, inputs)
    made_from = inputs.made_from(space.ranges, objective)
    where = storage_of(section, out)
    scorer, notes = _scorer(decode, out, inputs, affinities, space, decode_whole)
    if section.objective == "auto" and not inputs.truth.skeleton:
        logging.info(
            "no skeletons: tuned by %s against %s",
            name_of(objective),
            inputs.truth.label,
        )
    with storage.reserved(where, alone=space.on_grid or redo) as reservation:
        if redo:
            storage.remove_study(where, section.study)
        sampler = study.sampler(section.sampler, seed)
        opened = storage.open_study(where, section.study, made_from, sampler)
        with storage.clear_errors(where):
            done = _complete(opened, reservation, space, scorer)
            # In turn, so that who writes last has seen every trial.
            turn = out.best_params.with_name(out.best_params.name + ".lock")
            with storage.in_turn(turn):
                result = best_params.conclude(
                    decode,
                    opened,
                    where,
                    made_from,
                    configured=space.configured,
                    on_test=inputs.on_test,
                    notes=notes,
                )
                best_params.write(out, opened, result, space.configured)
    logging.info(
        "tuned: %d trials in %s, %d complete\nwrote %s",
        done,
        quantities.duration(time.monotonic() - started),
        len(study.complete(opened)),
        out.best_params,
    )
    return result


def _objective(section: Section, inputs: Inputs) -> str:
    """The word of `tune.objective` for this truth, if it can be computed from it."""
    word = settled(section.objective, inputs.truth.skeleton)
    require_truth(word, inputs.truth)
    return word


def _scorer(
    decode: Any,
    out: TuneDir,
    inputs: Inputs,
    affinities: Volume,
    space: Space,
    decode_whole: Decode | None,
) -> tuple[Scorer | LabelScorer, tuple[str, ...]]:
    """What scores a point, and what a reader of its scores must know."""
    if not inputs.truth.skeleton:
        inputs.truth.require_readable((), affinities)
        return LabelScorer(inputs, affinities, decode.memory_gb, decode_whole), ()
    truth, part = nodes.in_region(inputs.truth.load_skeletons(out.path), affinities)
    scorer = Scorer(
        inputs, affinities, truth, decode, space.ranges, decode_whole, out.tables
    )
    return scorer, (study.few_skeletons(truth, space.ranges), part)


def _complete(
    opened: optuna.Study,
    reservation: storage.Reservation,
    space: Space,
    scorer: Scorer | LabelScorer,
) -> int:
    """Evaluates what a study lacks, alone or beside other tuners; how many trials."""
    study.require_like(opened, space.ranges, on_grid=space.on_grid)
    if reservation.alone:
        study.release_orphans(opened, retry=True, every_host=reservation.one_host)
    if space.on_grid:
        return study.run_grid(opened, space.points, scorer.segments, scorer.score)
    reservation.share()
    return study.run_sampled(
        opened,
        space.ranges,
        space.configured,
        space.trials,
        scorer.score_of,
        space.at_most,
        reservation.turn,
    )


def check(section: Section, decode: Any) -> Space:
    """What a study varies, if its keys can be; asked before anything is written.

    Args:
      section: `tune`.
      decode: `decode`.

    Raises:
      InputError: as `Space.of`; another method or sampler; or a storage that can hold no
        study.
    """
    require_choice("decode.method", decode.method, METHODS)
    require_choice("tune.sampler", section.sampler, study.SAMPLERS)
    require_choice("tune.objective", section.objective, WORDS)
    space = Space.of(section, decode)
    where = optional(section.storage)
    if where:
        place.require_place(where)
    return space


def check_study(
    section: Section,
    decode: Any,
    out: TuneDir,
    inputs: Inputs,
    *,
    redo: bool = False,
) -> None:
    """Refuses what `run` would, as far as it can be known, and writes nothing.

    Args:
      section, decode, out: as `run`.
      inputs: as `run`, without their mask, and without a prediction if there is none yet.
      redo: as `run`.

    Raises:
      InputError: as `run`.
    """
    space = check(section, decode)
    for path in (out.best_params, out.figure):
        files.require_file(path)
    objective = _objective(section, inputs)
    covered = None
    if inputs.prediction:
        finished.require_finished(inputs.prediction)
        covered = open_affinities(inputs.prediction)
    cache = out.path if out.path.is_dir() else None
    if inputs.truth.skeleton:
        truth = inputs.truth.load_skeletons(cache)
        if covered is not None:
            nodes.in_region(truth, covered)
    else:
        inputs.truth.require_readable((), covered)
    facts = {} if redo else inputs.known_by_now(space.ranges, objective)
    storage.require_fitting(storage_of(section, out), section.study, facts)


def storage_of(section: Section, out: TuneDir) -> str:
    """`tune.storage`, or the database in the study's folder."""
    return optional(section.storage) or str(out.database(section.study))
