"""Comparisons of schemes, as tables: runs ``wavroute compare``, or reads what it left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wavroute import _command, _torch

RESULT = "compare.json"


class Comparison(Sequence[dict[str, Any]]):
    """The rows of a grid's table: a dict for each scheme and depth, members of members under names
    with a dot ("difference.mean"). ``pandas.DataFrame(comparison)`` takes it."""

    def __init__(self, folder: Path, document: dict[str, Any]) -> None:
        #: The folder of the grid.
        self.folder = folder
        #: All of compare.json: also "cells", "speed", "summary".
        self.document = document
        self._rows = [dict(_flat(row)) for row in document["rows"]]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    @property
    def cells(self) -> list[dict[str, Any]]:
        """One dict for each training."""
        return [dict(_flat(cell)) for cell in self.document["cells"]]

    def to_pandas(self) -> Any:
        """A pandas.DataFrame. Errors: ImportError where there is no pandas."""
        import pandas

        return pandas.DataFrame(self._rows)

    def __repr__(self) -> str:
        return f"Comparison({str(self.folder)!r}, rows={len(self)})"


def compare(config: str | os.PathLike[str], *, out: str | os.PathLike[str] | None = None,
            overrides: Mapping[str, Any] | None = None,
            resume: bool = False) -> Comparison:
    """Trains the grid of a configuration's ``[compare]`` (a shipped name or a file) into the folder
    ``out``, or reads a folder that ``wavroute compare`` has left, where ``config`` is one.

    overrides: keys to change, as --set: {"train.steps": 100}. resume: goes on with what ``out``
    has.

    Errors: ValueError for what the command refuses, RuntimeError where it fails, with its words;
    FileNotFoundError where the command is not to be found.
    """
    folder = Path(config)
    if folder.is_dir():
        if out is not None or overrides or resume:
            raise ValueError("expected out, overrides and resume with a configuration, given with "
                             f"the folder {folder}")
        return _read(folder)
    if out is None:
        raise ValueError("expected out, the folder of the comparison, given none")
    words = [str(_program()), "compare", os.fspath(config), "--out", os.fspath(out)]
    for key, value in (overrides or {}).items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    if resume:
        words += ["--resume", "auto"]
    done = subprocess.run(words, capture_output=True, text=True, check=False,
                          env=_command.environment(_torch.folder()))
    if done.returncode != 0:
        error = ValueError if done.returncode == 2 else RuntimeError
        raise error(done.stderr.strip() or f"wavroute compare ended with {done.returncode}")
    return _read(Path(out))


def _read(folder: Path) -> Comparison:
    file = folder / RESULT
    if not file.is_file():
        raise ValueError(f"expected a folder with {RESULT}, given {folder}")
    return Comparison(folder, json.loads(file.read_text()))


def _program() -> Path:
    """The command: beside the package, in the build tree, or on the path."""
    built = _command.PACKAGE.parent.parent / "bin" / "wavroute"
    for path in (_command.PROGRAM, built):
        if path.is_file():
            return path
    found = shutil.which("wavroute")
    if found is None:
        raise FileNotFoundError("expected the command wavroute beside the package or on the path, "
                                "given none")
    return Path(found)


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
