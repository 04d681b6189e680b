"""Where the built programs are, and how the tests call them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def program(name: str) -> Path:
    """The built program `name`; skips the test where it was not built. WAVROUTE_BIN: its folder."""
    folder = Path(os.environ.get("WAVROUTE_BIN") or REPOSITORY / "build" / "bin")
    path = folder / name
    if not path.is_file():
        pytest.skip(f"{name} is not in {folder}: build it, or set WAVROUTE_BIN")
    return path


def package() -> Path:
    """The folder from which `import wavroute` takes the built package, put on this process's path;
    skips the test where it was not built."""
    folder = program("wavroute").parent.parent / "python"
    if not (folder / "wavroute" / "libwavroute.so").is_file():
        pytest.skip(f"the Python package is not in {folder}: build it")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return folder


def call(name: str, *arguments: object, timeout: float = 120,
         env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Runs a built program on one thread; the caller looks at returncode, stdout and stderr."""
    return subprocess.run(
        [str(program(name)), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
    )
