"""keeprate: learning from noisy labels with a searched keep-rate schedule."""

import lazy_loader

# A public name is imported at its first use: `import keeprate` does not wait for PyTorch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
