"""keeprate: learning from noisy labels with a searched keep-rate schedule."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keeprate.data import load as load
    from keeprate.data import prepare as prepare
    from keeprate.errors import InputError as InputError
    from keeprate.sampler import NaturalGradientSampler as NaturalGradientSampler
    from keeprate.schedules import Schedule as Schedule
    from keeprate.search import search as search
    from keeprate.search import train as train

__version__ = "0.1.0"

# Where each public name lives; it is imported at its first use (PEP 562), so that
# `import keeprate` does not wait for PyTorch. Keep in step with the imports above.
_HOMES = {
    "InputError": "errors",
    "NaturalGradientSampler": "sampler",
    "Schedule": "schedules",
    "load": "data",
    "prepare": "data",
    "search": "search",
    "train": "search",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `keeprate.search` the function: importing the submodule would bind the module."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
