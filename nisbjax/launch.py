"""nisbjax: affinity segmentation of neurons, from crops to a NERL score.

python -m nisbjax --config=liconn [--mode=M] [--workdir=DIR] [--checkpoint=DIR]
                  [--config.any.key=value]

--config is a preset, a file (configs/liconn.py) or a run's (RUN/config.json); without it
--workdir brings that of the run. -h, --help=SECTION and --version say more.

modes:
  synth      write a procedural LICONN-like data set in the NISB layout
  check      before a night: open all that the others read, draw three crops, end with
             "ready" or a list of what is wrong; writes RUN/check
  train      (default) train, validate, checkpoint; resumes by itself from --workdir
  predict    affinities of the test volume, or of --config.predict.input
  qc         scan a prediction, decide the z cuts, write the report
  mask       build affinity_mask.h5 from a QC report
  decode     affinities to a segmentation
  evaluate   NERL, VOI and the rest of a segmentation
  test       predict, qc, mask, decode and evaluate the test volume
  tune       threshold study on the validation volume
  tune-test  tune, then test with the best threshold
  skeletonize  skeletons of dense labels that have none, for NERL and tuning
  import     weights of BANIS, PyTC, MedNeXt or MONAI (--checkpoint=FILE) as a checkpoint
  export     weights of a checkpoint for torch, under MedNeXt's names (.safetensors)
  validate   NERL of every checkpoint on the validation volume; with --watch beside training
  summarize  mean and spread over trainings: --mode=summarize RUN RUN ..., no --config
  compare    two evaluations of one volume, by skeleton: --mode=compare A.json B.json
  convert    a volume into another format: --mode=convert em.tif em.zarr, no --config; keys
             are flags (--config.convert.downsample=4, --help=convert)
  demo       synth, train, tune, test, and the untrained and intensity baselines beside them
  config     print every key as the run would have it, and what differs from the preset

--redo=predict,decode (of --mode=test, or that of its own mode; with tune, tune-test and validate
also tune, the study) replaces what the stage made before, where other keys would be refused; the
log says first which files these are. Without --workdir, training starts
outputs/<name>/<time stamp>, the other modes take the newest run of the config and say which.
Programs that XLA compiled for a GPU are kept in the user's cache; --compilation_cache=DIR names
another folder (on a CPU too), "" none. Input that cannot be used ends with one line and
exit status 2.
"""

import os
import sys

from nisbjax.parallel import signals

if __name__ == "__main__":  # all else takes a second to import
    signals.end_at_once()

import contextlib
import importlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from nisbjax.console import log_lines, quantities
from nisbjax.errors import InputError, require_choice
from nisbjax.keys import ranges
from nisbjax.keys.checks import optional
from nisbjax.modes import command_line, outside, presets, usage
from nisbjax.modes.next_command import Start
from nisbjax.modes.run_folder import find_run
from nisbjax.parallel import background, compilation_cache, environment
from nisbjax.typing import Config

# Mode -> the function that runs it, as (config, run, checkpoint path); imported when its
# mode is asked for, so that decoding or scoring does not load JAX.
MODES = {
    "synth": "nisbjax.modes.demo:synth",
    "check": "nisbjax.modes.check:run",
    "train": "nisbjax.modes.train:run",
    "predict": "nisbjax.modes.alone:predict",
    "qc": "nisbjax.modes.alone:qc",
    "mask": "nisbjax.modes.alone:mask",
    "decode": "nisbjax.modes.alone:decode",
    "evaluate": "nisbjax.modes.alone:evaluate",
    "test": "nisbjax.modes.workflow:test",
    "tune": "nisbjax.modes.workflow:tune",
    "tune-test": "nisbjax.modes.workflow:tune_test",
    "skeletonize": "nisbjax.modes.skeletonize:run",
    "import": "nisbjax.modes.weights:run",
    "export": "nisbjax.modes.weights:export",
    "validate": "nisbjax.modes.validate:run",
    "demo": "nisbjax.modes.demo:run",
}
# Mode -> its stages that keep what they made, and refuse it to other keys.
_REDONE = {
    "test": ("predict", "decode"),
    "predict": ("predict",),
    "decode": ("decode",),
    "tune": ("predict", "tune"),
    "tune-test": ("predict", "tune", "decode"),
    "validate": ("predict", "tune", "decode"),
    "skeletonize": ("skeletonize",),
}
# Flag -> the modes that take it.
_EXTRAS: dict[str, tuple[str, ...]] = {
    "reset": ("train",),
    "watch": ("validate",),
    "redo": tuple(_REDONE),
    "coordinator": ("train",),
}
# Modes that take paths and need no config, as (paths, workdir).
PATH_MODES = {
    "summarize": "nisbjax.modes.summarize:run",
    "compare": "nisbjax.modes.compare:run",
}
# Modes that take paths, and keys that all have a default, as (paths, config, workdir).
CONFIGURED_PATH_MODES = {"convert": "nisbjax.modes.convert:run"}
_ENDING = "nisbjax.modes.ending:text"
_SHOW = "config"  # the mode that works on the configuration alone
_WITHOUT_JAX = ("qc", "mask", "decode", "evaluate", "tune", "skeletonize")
# Modes that write down whether a value was a default.
_TELL_ORIGINS = ("test",)


FLAGS = flags.FLAGS


def define_flags() -> None:
    """All but `--config`, which the parser takes: its keys are flags by then."""
    flags.DEFINE_string("mode", "train", "What to do, see above.")
    flags.DEFINE_string("workdir", "", "The run's folder.")
    flags.DEFINE_string("checkpoint", "", "A checkpoint, or the run that holds it.")
    flags.DEFINE_bool("watch", False, "With validate: wait for new checkpoints.")
    flags.DEFINE_list("reset", [], "Of it, with train: optimizer, schedule, step.")
    flags.DEFINE_list(
        "redo",
        [],
        "Of predict, tune, decode, skeletonize: what is made anew, see above.",
    )
    flags.DEFINE_string(
        "coordinator",
        "",
        "With train on several hosts: host:port of process 0. SLURM's "
        "variables say it by themselves.",
    )
    flags.DEFINE_string(
        "compilation_cache",
        None,
        'Folder of compiled programs; "" for none. By default one of the user\'s, on a GPU.',
    )
    flags.DEFINE_integer("processes", 1, "How many there are, with --coordinator.")
    flags.DEFINE_integer("process", 0, "Which this is, from 0, with --coordinator.")


def main(arguments: Sequence[str]) -> None:
    """Runs the mode that the flags name; whatever fails outside of us is one line."""
    quiet_libraries()
    try:
        with signals.ending():
            _run(list(arguments[1:]))
        sys.stdout.flush()
    except KeyboardInterrupt:
        fail(signals.KEYBOARD, signals.INTERRUPTED)
    except BrokenPipeError:
        _leave_output()
        fail("whoever read the output has closed it; start again")
    except Exception as error:
        line = outside.explain(error)
        if line is None:  # a defect of ours
            raise
        fail(line)


def _run(paths: list[str]) -> None:
    if FLAGS.mode in PATH_MODES:
        run_paths(FLAGS.mode, paths, FLAGS.workdir)
        return
    if FLAGS.mode in CONFIGURED_PATH_MODES:
        run = _function(CONFIGURED_PATH_MODES[FLAGS.mode])
        run(paths, FLAGS.config, FLAGS.workdir)
        return
    if FLAGS.mode == _SHOW and FLAGS.config is not None:
        from nisbjax.modes import show_config

        show_config.run(FLAGS.config, presets.take(sys.argv)[0])
        return
    if paths:
        raise InputError(f"{paths[0]!r} is no flag; --mode={FLAGS.mode} takes no paths")
    flagged = {name: FLAGS[name].value for name in ("reset", "watch", "redo")}
    extras: dict[str, Any] = {name: v for name, v in flagged.items() if v}
    folder = FLAGS.compilation_cache
    compilation_cache.ask(folder if folder is None else optional(folder))
    if FLAGS.coordinator:
        extras["coordinator"] = FLAGS.coordinator, FLAGS.processes, FLAGS.process
    given = (
        ()
        if FLAGS.config is None
        else config_flags.get_override_values(FLAGS["config"])
    )
    run_mode(
        FLAGS.mode,
        FLAGS.config,
        FLAGS.workdir,
        FLAGS.checkpoint,
        given=tuple(given),
        start=Start.of(sys.orig_argv, sys.argv[1:]),
        **extras,
    )


def _leave_output() -> None:
    """Points standard output nowhere: Python would complain once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_paths(mode: str, paths: Sequence[str], workdir: str = "") -> Any:
    """One mode that works on paths alone, as a function.

    Args:
      mode: a key of `PATH_MODES`.
      paths: what it works on.
      workdir: where it writes; "" for its own choice.
    """
    return _function(PATH_MODES[mode])(paths, workdir)


def _function(name: str) -> Callable[..., Any]:
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


def run_mode(
    mode: str,
    config: Config | None,
    workdir: str = "",
    checkpoint_path: str = "",
    *,
    given: Collection[str] = (),
    start: Start | None = None,
    **extras: Any,
) -> Any:
    """One mode of the command line, as a function.

    Args:
      mode: a key of `MODES`.
      config: the configuration; `data.root` is filled in where the run made its data.
      workdir: the run's folder; "" for a new one (train, synth, demo, import) or the newest.
      checkpoint_path: "" for the run's newest.
      given: keys that the command line set, as the flag parser has them.
      start: the command, for which it is printed what was made and what is next; None
        to print nothing.
      extras: flags that one mode alone takes (`_EXTRAS`).

    Returns:
      What the mode's function returns.

    Raises:
      InputError: whatever in the input cannot be used.
    """
    require_choice("--mode", mode, (*MODES, *PATH_MODES, *CONFIGURED_PATH_MODES, _SHOW))
    if config is None:
        without = f", and {workdir} has no config.json" if workdir else ""
        raise InputError(
            f"--config is missing{without}; wanted a preset such as liconn, a file, or the "
            "--workdir of a run that has begun"
        )
    if mode != "check":  # which lists them
        ranges.check(config)
    for name in extras:
        if mode not in _EXTRAS[name]:
            raise InputError(
                f"--{name} goes with --mode={' or '.join(_EXTRAS[name])}, not {mode}"
            )
    for stage in extras.get("redo", ()):
        require_choice("--redo", stage, _REDONE[mode])
    from nisbjax.modes import remote  # TensorStore, which not all need

    remote.settle(config)
    if mode not in _WITHOUT_JAX:
        environment.require_xla_flags(os.environ.get("XLA_FLAGS", ""))
    run_dir = find_run(mode, config, workdir, checkpoint_path, "reset" in extras)
    logging.info("%s in %s", mode, run_dir.path)
    if not config.data.root and run_dir.synthetic.is_dir():
        config.data.root = str(run_dir.synthetic)
    started = time.monotonic()
    work = _function(MODES[mode])
    if mode in _TELL_ORIGINS:
        extras["given"] = given
    result = work(config, run_dir, checkpoint_path, **extras)
    remote.say_fetched()
    if mode != "check":  # whose last word is `ready`
        seconds = time.monotonic() - started
        logging.info("%s took %s", mode, quantities.duration(seconds))
    if start and _is_first():
        try:
            said = _function(_ENDING)(mode, config, run_dir, result, start)
        except InputError as error:  # what is asked for is done, and stays so
            logging.warning("%s is done; what is next cannot be told: %s", mode, error)
        else:
            print(said, end="\n" * bool(said))
    return result


def _is_first() -> bool:
    """Whether this process speaks for those of its run; without JAX it is the only one."""
    jax = sys.modules.get("jax")
    return jax is None or jax.process_index() == 0


def quiet_libraries() -> None:
    """Shows our own progress, and only warnings of the libraries."""
    log_lines.show(os.path.dirname(__file__))


def fail(message: str, status: int = 2) -> NoReturn:
    """One line on standard error, and the exit status."""
    with contextlib.suppress(OSError, ValueError):  # it may be closed, too
        print(f"nisbjax: {' '.join(message.split())}", file=sys.stderr, flush=True)
    raise SystemExit(status)


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """The flags, or one line that says what is wrong with them."""
    quiet_libraries()  # absl has set its own handler by now, and a run's config is read
    try:
        return command_line.parse_flags(arguments, tuple(CONFIGURED_PATH_MODES))
    except InputError as error:
        fail(str(error))


def start() -> None:
    """The program: what is asked to be told is told, all else is a mode."""
    try:
        with signals.ending():
            told = usage.asked_for(sys.argv[1:], __doc__ or "")
            if told:
                print(told)
                return
            environment.use_huge_pages()
            define_flags()
            app.run(main, flags_parser=parse_flags)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            code = ended.code or 0
            stopped = code in (signals.STOPPED, signals.INTERRUPTED)
            background.end_process(code, stopped=stopped)
        raise
    except InputError as error:
        fail(str(error))
    except BrokenPipeError:
        _leave_output()
        fail("whoever read the output has closed it; start again")
    except KeyboardInterrupt:
        fail(signals.KEYBOARD, signals.INTERRUPTED)


if __name__ == "__main__":
    start()
