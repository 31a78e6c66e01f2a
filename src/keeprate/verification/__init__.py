"""Pairs of pictures, and how well distances tell those of one person from others."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
