"""The shared library: loaded once, on first use; its operators are ``torch.ops.wavroute``."""

from __future__ import annotations

from pathlib import Path

import torch

from wavroute._build import LIBRARY

#: Where the library lies: beside this package's sources, or where the build links them.
PATH = Path(__file__).parent / LIBRARY


def load() -> None:
    """Registers the operators. Errors: OSError where the library is missing or can't be loaded."""
    torch.ops.load_library(str(PATH))


load()
ops = torch.ops.wavroute
