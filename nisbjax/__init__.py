"""nisbjax: affinity segmentation of neurons in JAX, from crops to a NERL score.

The names below are kept stable for other programs (docs/functions.md). Each is imported
when it is first asked for, so that decoding or scoring does not load JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

from nisbjax.parallel import kernel_cache
from nisbjax.store import software

if TYPE_CHECKING:
    from nisbjax.data.affinities import affinity_targets
    from nisbjax.decode.connected_components import label_affinities
    from nisbjax.decode.streamed.labeling import label_volume
    from nisbjax.decode.thresholds.sweep import nodes_by_threshold
    from nisbjax.errors import InputError
    from nisbjax.evaluate.nerl import score
    from nisbjax.infer.predict import predict_volume
    from nisbjax.infer.windows import Grid
    from nisbjax.models.foreign.torch_import import read_state_dict, to_model
    from nisbjax.models.mednext import MedNeXt
    from nisbjax.skeletons import load as load_skeletons
    from nisbjax.store.volume import (
        create_zarr,
        open_affinities,
        open_image,
        open_labels,
        open_volume,
    )

__version__ = software.VERSION
__all__ = [
    "Grid",
    "InputError",
    "MedNeXt",
    "affinity_targets",
    "create_zarr",
    "label_affinities",
    "label_volume",
    "load_skeletons",
    "nodes_by_threshold",
    "open_affinities",
    "open_image",
    "open_labels",
    "open_volume",
    "predict_volume",
    "read_state_dict",
    "score",
    "to_model",
]

# Name -> where it lives, and what it is called there if that is another name.
_HOMES = {
    "Grid": "infer.windows",
    "InputError": "errors",
    "MedNeXt": "models.mednext",
    "affinity_targets": "data.affinities",
    "create_zarr": "store.volume",
    "label_affinities": "decode.connected_components",
    "label_volume": "decode.streamed.labeling",
    "load_skeletons": "skeletons:load",
    "nodes_by_threshold": "decode.thresholds.sweep",
    "open_affinities": "store.volume",
    "open_image": "store.volume",
    "open_labels": "store.volume",
    "open_volume": "store.volume",
    "predict_volume": "infer.predict",
    "read_state_dict": "models.foreign.torch_import",
    "score": "evaluate.nerl",
    "to_model": "models.foreign.torch_import",
}

kernel_cache.use()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, own = _HOMES[name].partition(":")
    found = getattr(importlib.import_module(f"{__name__}.{module}"), own or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
