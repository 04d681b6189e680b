"""The commands of the manual pages run as they stand there, one after the other, in an empty folder."""

import os
import re
import shlex
import subprocess

import paths
import pytest
from paths import REPOSITORY

PAGES = ["train", "compare"]


def commands(page):
    """The lines of code that begin with wavroute, without what is a remark in them."""
    text = (REPOSITORY / "docs" / f"{page}.md").read_text()
    lines = re.findall(r"^    (wavroute .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_in_their_order(tmp_path, page):
    words = [line for line in commands(page) if "CONFIG" not in line]
    assert len(words) > 4
    for _, *arguments in words:
        done = subprocess.run(
            [str(paths.program("wavroute")), *arguments], cwd=tmp_path, capture_output=True,
            text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stderr)
