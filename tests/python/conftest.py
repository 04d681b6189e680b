"""Fixtures for every test: the built programs."""

from pathlib import Path

import paths
import pytest


@pytest.fixture
def bin_dir() -> Path:
    """The folder of the built programs; skips where the command is not there. See paths.py."""
    return paths.program("wavroute").parent


@pytest.fixture
def wavroute():
    """Runs the command: wavroute("config", "list") gives the completed process."""
    paths.program("wavroute")
    return lambda *arguments, **options: paths.call("wavroute", *arguments, **options)
