"""Label noise: kinds of noise, labels corrupted by them, and what predictions say of noise."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
