"""The torch that this package runs on: found, and held against the one it was built with, without
importing it, which takes seconds."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from wavroute._build import TORCH


def folder() -> Path | None:
    """The folder of the torch package that ``import torch`` loads; None where there is none."""
    module = sys.modules.get("torch")
    spec = module.__spec__ if module else importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def problem() -> tuple[str, str] | None:
    """What is wrong with it, and how to mend that; None where it is the one."""
    hint = f"pip install torch=={TORCH}, or build wavroute for the torch that is there"
    place = folder()
    if place is None:
        return f"expected torch {TORCH}, which wavroute was built with, given none in {sys.prefix}", hint
    try:
        text = (place / "version.py").read_text()
    except OSError:
        text = ""
    # Without what stands behind a plus: a wheel for GPUs has the same interface.
    found = re.search(r"__version__ = ['\"]([^'\"+]*)", text)
    if found and found[1] == TORCH:
        return None
    version = found[1] if found else "another one"
    return f"expected torch {TORCH}, which wavroute was built with, given {version} in {place}", hint


def _command() -> bool:
    """Whether this process is the command, or one of the package's modules run by ``python -m``."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    script = Path(sys.argv[0]).name if getattr(sys, "argv", None) else ""
    return script == "wavroute" or module.split(".")[0] == "wavroute"


def check() -> None:
    """Errors: ImportError where torch is missing or another release; the command says so in its way
    and ends."""
    wrong = problem()
    if wrong and _command():
        print("wavroute: {}\nhint: {}".format(*wrong), file=sys.stderr)
        raise SystemExit(2)
    if wrong:
        raise ImportError("{}\nhint: {}".format(*wrong))
