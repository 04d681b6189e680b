"""The command ``wavroute`` of an installed package: starts the program that lies in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from wavroute import _torch

PACKAGE = Path(__file__).parent
PROGRAM = PACKAGE / "bin" / "wavroute"


def environment(torch: Path) -> dict[str, str]:
    """What the program runs under: this interpreter for what it asks Python for, and torch's libraries
    where they are not beside the package, as in an environment that takes them from another one."""
    values = {"WAVROUTE_PYTHON": sys.executable, **os.environ}
    if not (PACKAGE.parent / "torch").exists():
        paths = [str(torch / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
        values["LD_LIBRARY_PATH"] = ":".join(filter(None, paths))
    return values


def main() -> None:
    os.execve(PROGRAM, ["wavroute", *sys.argv[1:]], environment(_torch.folder()))
