"""Data sets: read, cut into three disjoint splits, and made ready for networks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
