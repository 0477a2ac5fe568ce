"""nisbjax: affinity segmentation of neurons in JAX, from crops to a NERL score."""

from nisbjax.parallel import kernel_cache

__version__ = "0.1.0"

kernel_cache.use()
