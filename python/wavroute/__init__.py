"""Residual streams of deep transformers for PyTorch models.

Nothing is loaded before it is used: ``import wavroute`` itself imports no torch. Errors:
ImportError where the torch that is installed is not of the release that the library was built with.
"""

from __future__ import annotations

import importlib
from typing import Any

from wavroute import _torch

_torch.check()

#: Public names and the modules that define them.
_PLACES: dict[str, str] = {
    "schemes": "wavroute._schemes",
    "load": "wavroute.models",
    "Tokenizer": "wavroute.models",
    "inspect": "wavroute.inspection",
    "Inspection": "wavroute.inspection",
    "compare": "wavroute.comparison",
    "Comparison": "wavroute.comparison",
}
_MODULES: tuple[str, ...] = ("nn",)

__all__ = [*_PLACES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"wavroute.{name}")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'wavroute' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
