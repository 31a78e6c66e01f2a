"""keeprate: learning from noisy labels with a searched keep-rate schedule."""

__version__ = "0.1.0"
