"""What the tests of wavroute compare share: a grid, one of variants, losses."""

import json
from pathlib import Path

from cli_tools import write_project

GRID = """
extends = "small.toml"
[compare]
schemes = ["prenorm", "wav"]
seeds = [1, 2]
wider_baseline = false  # routers are many parameters beside width 16
"""

VARIANTS = """
extends = "small.toml"
[compare]
schemes = ["prenorm"]
seeds = [1]
wider_baseline = false
[[compare.variant]]
label = "wild"
optimizer.lr = 1e30
optimizer.clip = 0.0
[[compare.variant]]
label = "mild"
optimizer.lr = 1e-4
"""


def write_grids(folder: Path) -> Path:
    """grid.toml and variants.toml beside what write_project makes; `folder`."""
    write_project(folder)
    (folder / "grid.toml").write_text(GRID)
    (folder / "variants.toml").write_text(VARIANTS)
    return folder


def mean_of_last(out, cell, count=3):
    """The mean of the last evaluations of a cell, from its metrics.jsonl."""
    rows = [json.loads(line) for line in (out / "cells" / cell / "metrics.jsonl").open()]
    values = [row["val_loss"] for row in rows if "val_loss" in row]
    return sum(values[-count:]) / len(values[-count:])


def losses(out):
    """Loss by cell, from compare.json; every cell finished."""
    cells = json.loads((out / "compare.json").read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["finished"] * len(cells)
    return {cell["run"].removeprefix("cells/"): cell["val_loss"] for cell in cells}
