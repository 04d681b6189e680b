"""Fixtures for every test: the built programs."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import paths
import pytest
from cli_tools import assert_ok

# A shell's "command &" ignores SIGINT, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def bin_dir() -> Path:
    """The folder of the built programs; skips where the command is not there. See paths.py."""
    return paths.program("wavroute").parent


@pytest.fixture
def wavroute():
    """Runs the command: wavroute("config", "list") gives the completed process."""
    paths.program("wavroute")
    return lambda *arguments, **options: paths.call("wavroute", *arguments, **options)


@pytest.fixture
def with_memory(tmp_path):
    """with_memory(500, "train", ...): the command where /proc/meminfo says that 500 MB are free, and
    no GPU has memory of its own."""
    paths.program("wavroute")
    meminfo = tmp_path / "meminfo"
    meminfo.touch()
    mounted = f"mount --bind '{meminfo}' /proc/meminfo"
    alone = ["unshare", "--mount", "sh", "-c"]
    tried = shutil.which("unshare") and subprocess.run([*alone, mounted], capture_output=True)
    if not tried or tried.returncode:
        pytest.skip("mounting over /proc/meminfo is not permitted here")

    def call(megabytes: int, *arguments: object) -> subprocess.CompletedProcess:
        free = megabytes * 1000000 // 1024
        meminfo.write_text(f"MemTotal: {free + 100000} kB\nMemAvailable: {free} kB\n")
        command = [str(paths.program("wavroute")), *map(str, arguments)]
        return subprocess.run([*alone, f'{mounted} && exec "$@"', "sh", *command],
                              capture_output=True, text=True, timeout=120,
                              env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})

    return call


@pytest.fixture(scope="module")
def finished(project):
    """A run of the module's `project`: 12 steps with checkpoints at 8 and 12, to copy."""
    out = project.parent / "finished"
    assert_ok(paths.call("wavroute", "train", project, "--out", out, "-q"))
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")
