"""What a segmentation is compared with: skeletons, dense labels, or both.

PyTC skips a metric that has nothing to be compared with, and says so in its log; here it is
refused, by the mode even before there is a segmentation to score.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from nisbjax import skeletons
from nisbjax.errors import InputError, require_choice
from nisbjax.evaluate import nodes
from nisbjax.store import regions
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.unlabeled import DEFAULT
from nisbjax.store.volume import Volume, open_labels

METRICS = ("nerl", "voi", "adapted_rand", "instance_accuracy")
WORDS = ("auto", *METRICS)
DENSE_METRICS = {"adapted_rand", "instance_accuracy"}  # of labels, not of skeletons


def settled(metrics: Sequence[str], skeleton: str) -> tuple[str, ...]:
    """Words of `METRICS`: NERL and VOI for `auto` with skeletons, adapted Rand and VOI without.

    Args:
      metrics: of `WORDS`.
      skeleton: path of the volume's skeletons; "" where none is named.
    """
    own = ("nerl", "voi") if skeleton else ("adapted_rand", "voi")
    found = [own if metric == "auto" else (metric,) for metric in metrics]
    return tuple(dict.fromkeys(word for words in found for word in words))


@dataclasses.dataclass(frozen=True)
class Truth:
    """The truth of one volume.

    Attributes:
      skeleton: path of skeletons, see `skeletons.load`; "" for none.
      label: path of dense labels [x y z]; "" for none.
      voxel_size_nm: x, y, z; for skeletons without positions in nm.
      unlabeled: labels that say nothing, see `unlabeled.parse_codes`.
      dense: path of dense labels of the volume whose components are the ceiling of a
        score by skeletons, compared with or not; "" for none.
      key: of the configuration, which names the skeleton; for messages.
      instead: what else can be done where the skeleton is not there; for messages.
    """

    skeleton: str
    label: str
    voxel_size_nm: tuple[float, float, float]
    unlabeled: str = DEFAULT
    dense: str = ""
    key: str = "evaluate.skeleton"
    instead: str = "score dense labels with --config.evaluate.metrics=adapted_rand"

    @property
    def path(self) -> str:
        """The skeletons, or the dense labels where there are none."""
        return self.skeleton or self.label

    def facts(self) -> dict[str, str]:
        """Which they are: a hash of the skeletons, or of the labels and their codes."""
        if self.skeleton:
            return {"skeleton": skeletons.content_hash(self.skeleton)}
        return {"label": fingerprint(self.label), "data.unlabeled": self.unlabeled}

    def load_skeletons(self, cache: Path | None = None) -> skeletons.Skeletons:
        """The skeletons; `cache` is a folder that keeps them as arrays, or None.

        Raises:
          InputError: as `skeletons.load`; of one that is not there, naming the key.
        """
        if not skeletons.is_there(self.skeleton):
            found = (
                f"no skeleton at {self.skeleton}" if self.skeleton else "no skeleton"
            )
            raise InputError(
                f"{found}; check data.root, name NISB's skeleton.pkl with "
                f"--config.{self.key}=FILE, or {self.instead}"
            )
        return skeletons.load(
            self.skeleton, cache=cache, voxel_size_nm=self.voxel_size_nm
        )

    def of_use_to(self, metrics: Sequence[str]) -> "Truth":
        """The same without skeletons that are not there, where no metric needs them."""
        if not self.label or "nerl" in metrics or not self.skeleton:
            return self
        if skeletons.is_there(self.skeleton):
            return self
        logging.warning(
            "no skeletons at %s, and evaluate.metrics does not need them; scoring "
            "against dense labels alone",
            self.skeleton,
        )
        return dataclasses.replace(self, skeleton="")

    def require_for(self, metrics: Sequence[str]) -> None:
        """Refuses metrics without what they are computed from.

        Raises:
          InputError: naming the metric and the key.
        """
        if "nerl" in metrics and not self.skeleton:
            raise InputError(
                "evaluate.metrics asks for nerl, but there is no skeleton; give "
                f"--config.{self.key}=FILE, or {self.instead}"
            )
        dense = [m for m in metrics if m in DENSE_METRICS]
        if not self.skeleton and not self.label:
            raise InputError(
                f"there are neither skeletons nor dense labels for {', '.join(metrics)}; "
                f"give --config.{self.key}=FILE or --config.evaluate.label=FILE"
            )
        if dense and not self.label:
            raise InputError(
                f"evaluate.metrics asks for {', '.join(dense)}, but there are no dense "
                "labels; give --config.evaluate.label=FILE, or other metrics"
            )

    def require_readable(
        self,
        metrics: Sequence[str],
        covered: Volume | None = None,
        cache: Path | None = None,
    ) -> None:
        """Refuses files that are not there, cannot be read, or are of another volume.

        Args:
          metrics: of `METRICS`.
          covered: a volume of the segmentation's shape and region, such as the
            affinities that it will be made from; None where there is none yet.
          cache: as `load_skeletons`.

        Raises:
          InputError: naming the file.
        """
        if "nerl" in metrics and not skeletons.is_there(self.skeleton):
            raise InputError(
                f"no skeleton at {self.skeleton}; check data.root, give "
                f"--config.{self.key}=FILE, or {self.instead}"
            )
        if skeletons.is_there(self.skeleton):
            found = self.load_skeletons(cache)
            if covered is not None:
                nodes.in_region(found, covered)
        if self.label:
            labels = open_labels(self.label)
            if covered is not None:
                labels = regions.part_like(labels, covered)
            shape = labels.spatial_shape
            if covered is not None and shape != covered.spatial_shape:
                raise InputError(
                    f"labels {self.label} have shape {shape}, and what is to be scored "
                    f"{covered.spatial_shape}; wanted the same volume"
                )


def require_metrics(metrics: Sequence[str]) -> None:
    """Refuses a word that is no metric.

    Raises:
      InputError: naming those that there are.
    """
    for metric in metrics:
        require_choice("evaluate.metrics", metric, WORDS)
