"""keeprate: learning from noisy labels with a searched keep-rate schedule."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keeprate.data import load as load
    from keeprate.data import prepare as prepare
    from keeprate.errors import InputError as InputError
    from keeprate.estimator import NoisyLabelClassifier as NoisyLabelClassifier
    from keeprate.label_quality import find_label_issues as find_label_issues
    from keeprate.methods import Method as Method
    from keeprate.runs import train as train
    from keeprate.sampler import NaturalGradientSampler as NaturalGradientSampler
    from keeprate.schedules import Schedule as Schedule
    from keeprate.searching import search as search

__version__ = "0.1.0"

# Where each public name lives; it is imported at its first use (PEP 562), so that
# `import keeprate` does not wait for PyTorch. Keep in step with the imports above.
_HOMES = {
    "InputError": "errors",
    "Method": "methods",
    "NaturalGradientSampler": "sampler",
    "NoisyLabelClassifier": "estimator",
    "Schedule": "schedules",
    "find_label_issues": "label_quality",
    "load": "data",
    "prepare": "data",
    "search": "searching",
    "train": "runs",
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
