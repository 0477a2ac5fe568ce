"""The only place that names a file of a run.

The tree follows PyTC's (`outputs/<name>/<time stamp>/test_<checkpoint>/<volume>/...`), so
that its users find `raw_x1_ch0-1-2.h5` and `eval_decoded_*.txt` where they look for them.
Unlike there, the affinity mask and QC report of every volume lie beside its own prediction,
in tuning as in testing.
"""

import dataclasses
import datetime
import pathlib
from collections.abc import Sequence

from nisbjax.errors import InputError
from nisbjax.store import address, axes

_CHANNELS = (0, 1, 2)
_IMPORTED = "imported_"  # begins the folder of weights of another program
_CONTAINERS = (
    ".zarr",
    ".h5",
    ".hdf5",
    ".n5",
    ".npy",
    ".npz",
    ".tif",
    ".tiff",
    ".md",
    ".b2nd",
    ".nii.gz",
    ".nii",
    ".gz",
)
OWN_NAMES = ("raw_x1_ch", "decoded_")  # begin what a run writes of a volume
_OF_A_CHECKPOINT = ("test_step=", "tune_step=", "validate")  # begin a run's folders
_UNINFORMATIVE = ("img", "image", "raw", "em", "main", "data", "seg", "skeleton")


def volume_name(path: str | pathlib.Path) -> str:
    """`.../seed6/data.zarr/img` -> `seed6`: the last part of a path that tells something."""
    named, said = axes.split_path(str(path))
    for part in reversed(pathlib.Path(named).absolute().parts[1:]):
        stem = part.split(".")[0]
        if stem and stem.lower() not in _UNINFORMATIVE and not part.endswith(".zarr"):
            return stem + _channel(said)
    return "volume" + _channel(said)


def file_name(path: str | pathlib.Path) -> str:
    """What tells a file from its neighbours: `a.h5` -> `a`, `a.h5/two/aff` -> `a_two_aff`."""
    file, inside = _file_of(path)
    return _joined(file, "", inside) + _channel(axes.split_path(str(path))[1])


def name_among_kinds(path: str | pathlib.Path) -> str:
    """What tells it from those of other formats, too: `a.zarr` -> `a`, `a.h5` -> `a_h5`."""
    file, inside = _file_of(path)
    of_zarr = file.suffix == ".zarr" or file.suffix not in _CONTAINERS
    name = _joined(file, "" if of_zarr else file.suffix[1:], inside)
    return name + _channel(axes.split_path(str(path))[1])


def _joined(file: pathlib.Path, kind: str, inside: Sequence[str]) -> str:
    stem = file.name
    for ending in _CONTAINERS:
        stem = stem.removesuffix(ending)
    words = (stem, kind, *(part for part in inside if part != "main"))
    return "_".join(word for word in words if word)


def folder_of(path: str | pathlib.Path) -> pathlib.Path:
    """Where a file lies that a key names, which may name a dataset inside it.

    Raises:
      InputError: at an address, where only convert writes.
    """
    if address.is_address(path):
        raise InputError(
            f"{path} is an address, where only --mode=convert writes; name the folder for "
            "what is made of it with --workdir=DIR"
        )
    return _file_of(path)[0].parent


def folder_name(path: str | pathlib.Path) -> str:
    """The name of the folder where a file lies, at an address too: a bucket's or a host's."""
    here = _file_of(path)[0]
    here = here if address.is_address(path) else here.resolve()
    return here.parent.name.replace(":", "_")


def _channel(said: str) -> str:
    """What tells one channel or time point of a file from another: `_c1`."""
    return "".join(f"_{axis}{n}" for axis, n in sorted(axes.choices_of(said).items()))


def _file_of(path: str | pathlib.Path) -> tuple[pathlib.Path, tuple[str, ...]]:
    """The file, or the zarr, that a path leads into; and what follows it."""
    named, _ = axes.split_path(str(path))
    whole = pathlib.Path(named)
    # From its end: a folder may well be called like a file.
    for folder in whole.parents:
        if folder.name.endswith(_CONTAINERS) and not whole.suffix in _CONTAINERS:
            return folder, whole.relative_to(folder).parts
    return whole, ()


def _raw(channels: Sequence[int]) -> str:
    return f"raw_x1_ch{'-'.join(map(str, channels))}"


def _length(path: pathlib.Path) -> int:
    return len(path.name)


@dataclasses.dataclass(frozen=True)
class VolumeDir:
    """What the stages write about one volume.

    Attributes:
      path: of the folder.
      of: what tells the file that was named from others, where names here are to hold it;
        "" in a run's own folders, which are of one volume each.
    """

    path: pathlib.Path
    of: str = ""

    def _named(self, name: str) -> pathlib.Path:
        return self.path / (f"{self.of}_{name}" if self.of else name)

    @property
    def name(self) -> str:
        return self.path.name

    def raw(
        self, format: str = "h5", channels: Sequence[int] = _CHANNELS
    ) -> pathlib.Path:
        """Affinities [c x y z] of some channels, `h5` or `zarr`."""
        return self.path / f"{_raw(channels)}.{format}"

    def find_raw(self, channels: Sequence[int] = _CHANNELS) -> pathlib.Path:
        """Affinities that begin with these channels, then with the fewest more.

        The HDF5 file is preferred, as in testing: of the zarr beside it the same segments
        would be those of another file.

        Raises:
          InputError: none there.
        """
        formats = ("h5", "zarr")
        with_more = (
            path
            for format in formats
            for path in sorted(
                self.path.glob(f"{_raw(channels)}-*.{format}"), key=_length
            )
        )
        for path in (*(self.raw(format, channels) for format in formats), *with_more):
            if path.exists():
                return path
        raise InputError(
            f"no {_raw(channels)}.zarr or .h5 in {self.path}; run --mode=predict"
        )

    @property
    def grey_values(self) -> pathlib.Path:
        """Statistics of images: those of the run, in a folder of one."""
        for above in self.path.parents:
            if above.name.startswith(_OF_A_CHECKPOINT):
                return Run(above.parent).grey_values
        return Run(self.path).grey_values

    @property
    def plane_statistics(self) -> pathlib.Path:
        """Per-plane sums gathered while predicting."""
        return self.path / f"{_raw(_CHANNELS)}.planes.npz"

    @property
    def mask(self) -> pathlib.Path:
        return self._named("affinity_mask.h5")

    @property
    def qc_report(self) -> pathlib.Path:
        return self._named("check_aff_report.md")

    def decoded(
        self,
        method: str,
        *parameters: float,
        channels: Sequence[int] = _CHANNELS,
        also: Sequence[str] = (),
    ) -> pathlib.Path:
        """Segments by a method and the parameters that tell its files apart.

        Args:
          method, parameters: theirs.
          channels: of the affinities that the method reads.
          also: words on what else tells them apart.
        """
        words = ["decoded", *[self.of] * bool(self.of)]
        words += [_raw(channels).removeprefix("raw_"), method]
        words += [f"{parameter:g}" for parameter in parameters]
        return self.path / f"{'_'.join([*words, *also])}.zarr"

    def evaluation(self, segmentation: pathlib.Path, suffix: str) -> pathlib.Path:
        """`eval_<stem of the segmentation><suffix>`, the suffix with its dot."""
        return self.path / f"eval_{self._stem(segmentation)}{suffix}"

    def slices(self, segmentation: pathlib.Path) -> pathlib.Path:
        """Image, affinity, a segmentation and truth side by side."""
        return self.path / f"slices_{self._stem(segmentation)}.png"

    @property
    def slices_png(self) -> pathlib.Path:
        """A copy of the newest of `slices`."""
        return self.path / "slices.png"

    def _stem(self, segmentation: pathlib.Path) -> str:
        return self.of or name_among_kinds(segmentation)


@dataclasses.dataclass(frozen=True)
class TuneDir:
    """A threshold study and the predictions that it scored."""

    path: pathlib.Path

    def prediction(self, volume: str) -> VolumeDir:
        return VolumeDir(self.path / "predictions" / volume)

    def database(self, study: str) -> pathlib.Path:
        return self.path / f"{study}.db"

    @property
    def best_params(self) -> pathlib.Path:
        return self.path / "best_params.yaml"

    @property
    def figure(self) -> pathlib.Path:
        return self.path / "tune.png"

    @property
    def trials(self) -> pathlib.Path:
        """Segmentations of trials under way, while tuners need a whole decode for each."""
        return self.path / "trials"

    @property
    def tables(self) -> pathlib.Path:
        """What the trials of a study of the chain share; may be removed when none runs."""
        return self.path / "tables"


@dataclasses.dataclass(frozen=True)
class ValidationDir:
    """Scores of a run's checkpoints on the validation volume."""

    path: pathlib.Path

    @property
    def json(self) -> pathlib.Path:
        return self.path / "nerl.json"

    @property
    def csv(self) -> pathlib.Path:
        return self.path / "nerl.csv"

    @property
    def checkpoints(self) -> pathlib.Path:
        """Copies of the weights that are being scored."""
        return self.path / "checkpoints"

    @property
    def lock(self) -> pathlib.Path:
        return self.path / "validate.lock"

    @property
    def stop(self) -> pathlib.Path:
        """Whoever makes this file ends `--watch` after the checkpoint under way."""
        return self.path / "stop"


@dataclasses.dataclass(frozen=True)
class CheckDir:
    """What `--mode=check` found."""

    path: pathlib.Path

    @property
    def report(self) -> pathlib.Path:
        return self.path / "check.txt"

    @property
    def picture(self) -> pathlib.Path:
        """Crops as the network will see them."""
        return self.path / "check.png"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder, as `--workdir` names it."""

    path: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        return self.path / "config.json"

    @property
    def command(self) -> pathlib.Path:
        return self.path / "command.txt"

    @property
    def environment(self) -> pathlib.Path:
        return self.path / "environment.json"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def logs(self) -> pathlib.Path:
        return self.path / "logs"

    @property
    def history(self) -> pathlib.Path:
        """Scalars of training, one JSON line for each logged step."""
        return self.path / "logs" / "history.jsonl"

    @property
    def lock(self) -> pathlib.Path:
        """Held by the process that trains here."""
        return self.path / "train.lock"

    @property
    def grey_values(self) -> pathlib.Path:
        """Statistics by which images are scaled."""
        return self.path / "grey_values"

    def not_finite(self, step: int) -> pathlib.Path:
        """What reproduces a step whose loss was NaN or infinite."""
        return self.path / f"not_finite_step={step:08d}.npz"

    def exported(self, step: int, which: str) -> pathlib.Path:
        """Weights for other programs, `ema` or `raw`."""
        return self.path / f"weights_step={step:08d}_{which}.safetensors"

    def skeletons(self, volume: str) -> pathlib.Path:
        """Those that `--mode=skeletonize` makes where no key names a place."""
        return self.path / "skeletons" / volume / "skeleton.pkl"

    @property
    def synthetic(self) -> pathlib.Path:
        return self.path / "data"

    @property
    def check(self) -> CheckDir:
        return CheckDir(self.path / "check")

    @property
    def validation(self) -> ValidationDir:
        return ValidationDir(self.path / "validate")

    def test(self, step: int, volume: str) -> VolumeDir:
        return VolumeDir(self.path / f"test_step={step:08d}" / volume)

    def tune(self, step: int) -> TuneDir:
        return TuneDir(self.path / f"tune_step={step:08d}")


def new_run(root: pathlib.Path, name: str) -> Run:
    """`<root>/<name>/<YYYYmmdd_HHMMSS>`, not yet made."""
    stamp = datetime.datetime.now().astimezone().strftime("%Y%m%d_%H%M%S")
    return Run(root / name / stamp)


def new_import(root: pathlib.Path, name: str) -> Run:
    """`<root>/<name>/imported_<time stamp>`, not yet made; no newest run."""
    run = new_run(root, name)
    return Run(run.path.with_name(f"{_IMPORTED}{run.path.name}"))


def newest_run(root: pathlib.Path, name: str) -> Run:
    """The newest training of a config that has a checkpoint.

    Weights that were imported are not taken for it.

    Raises:
      InputError: none.
    """
    # A run that ended before its first checkpoint has an empty folder of them.
    steps = (root / name).glob("*/checkpoints/*/params")
    runs = sorted({p.parents[2] for p in steps if p.parent.name.isdigit()})
    trained = [run for run in runs if not run.name.startswith(_IMPORTED)]
    if not trained:
        others = f" (imported: {runs[-1]})" if runs else ""
        raise InputError(
            f"no run of {name} under {root}; train one, or name it with --workdir=DIR{others}"
        )
    return Run(trained[-1])
