"""The folders of src/ include each other as docs/architecture.md draws them."""

import re

from paths import REPOSITORY

INCLUDE = re.compile(r'#include "(\w+)/\w+\.h"')


def drawn_folders() -> list[str]:
    """From top to bottom of the drawing."""
    drawing = (REPOSITORY / "docs/architecture.md").read_text().split("## The build")[0]
    return re.findall(r"^\s+src/(\w+) ", drawing, re.MULTILINE)


def test_every_folder_is_drawn():
    folders = {path.name for path in (REPOSITORY / "src").iterdir() if path.is_dir()}
    assert sorted(drawn_folders()) == sorted(folders)


def test_no_arrow_points_up():
    folders = drawn_folders()
    wrong = []
    for above, folder in enumerate(folders):
        for path in sorted((REPOSITORY / "src" / folder).glob("*.*")):
            for included in INCLUDE.findall(path.read_text()):
                if included in folders and folders.index(included) < above:
                    wrong.append(f"{path.relative_to(REPOSITORY)} includes {included}")
    assert not wrong
