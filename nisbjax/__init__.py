"""nisbjax: affinity segmentation of neurons in JAX, from crops to a NERL score."""

__version__ = "0.1.0"
