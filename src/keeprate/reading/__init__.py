"""Files as people have them -> Arrow tables and pixels, with notes on what was found."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
