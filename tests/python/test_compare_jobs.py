"""A grid as jobs of their own, learning rates and budgets included, collected into one result."""

import csv
import json
import sqlite3
from contextlib import closing
from functools import partial

import paths
import pytest
from cli_tools import assert_error, assert_ok, start, write_project
from compare_tools import mean_of_last

GRID = """
extends = "small.toml"
[compare]
schemes = ["prenorm", "wav"]
seeds = [1, 2]
lrs = [1e-3, 1e-2]
budgets = [0.5, 2.0]
jobs = 2
"""
FOLDERS = [
    "prenorm-lr0.001-L2-s1", "prenorm-lr0.01-L2-s1", "prenorm-L2-s2",
    "wav-lr0.001-L2-s1", "wav-lr0.01-L2-s1", "wav-L2-s2",
    # wav has 2.3 % more parameters: 136 of 3 * 16 * 2 to a column of the hidden layers
    "prenorm-h33-lr0.001-L2-s1", "prenorm-h33-lr0.01-L2-s1", "prenorm-h33-L2-s2",
    "prenorm-x0.5-L2-s2", "prenorm-x2-L2-s2",
]  # fmt: skip


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    path = write_project(tmp_path_factory.mktemp("jobs")).with_name("grid.toml")
    path.write_text(GRID)
    return path


@pytest.fixture(scope="module")
def collected(grid, tmp_path_factory):
    """The folder of the grid: cells 1, 2 and 3 as jobs, the rest by --resume auto."""
    out = tmp_path_factory.mktemp("collected") / "out"
    wavroute = partial(paths.call, "wavroute")
    jobs = [start("compare", grid, "--out", out, "--only", n) for n in (1, 2)]  # side by side
    for job in jobs:
        _, said = job.communicate(timeout=120)
        assert job.returncode == 0, said
    assert_error(wavroute("compare", grid, "--out", out, "--only", 6), "wav-lr0.001-L2-s1")
    third = assert_ok(wavroute("compare", grid, "--out", out, "--only", 3, "--json"))
    assert json.loads(third)["folder"] == "prenorm-L2-s2"
    assert not (out / "compare.json").exists() and not (out / "report.html").exists()
    before = [(out / "cells" / name / "metrics.jsonl").read_bytes() for name in FOLDERS[:3]]
    call = ["compare", grid, "--out", out, "--resume", "auto", "--speed-rounds", 1]
    assert_ok(wavroute(*call))
    after = [(out / "cells" / name / "metrics.jsonl").read_bytes() for name in FOLDERS[:3]]
    assert after == before
    return out


def test_cells_are_listed_with_their_numbers_and_nothing_is_written(wavroute, grid, tmp_path):
    out = tmp_path / "out"
    cells = json.loads(
        assert_ok(wavroute("compare", grid, "--out", out, "--list-cells", "--json"))
    )
    assert [cell["n"] for cell in cells] == list(range(1, 12))
    assert [cell["folder"] for cell in cells] == FOLDERS
    assert {key: cells[5][key] for key in ("label", "depth", "seed", "needs")} == {
        "label": "wav", "depth": 2, "seed": 2, "needs": [4, 5],
    }  # fmt: skip
    assert [cell["role"] for cell in cells].count("rate") == 6
    assert not out.exists()
    assert_error(wavroute("compare", grid, "--out", out, "--only", 12), "from 1 to 11")
    assert_error(wavroute("compare", grid, "--out", out, "--only", 0), "--only")


def test_jobs_and_the_rest_make_one_comparison(collected):
    document = json.loads((collected / "compare.json").read_text())
    assert [cell["run"] for cell in document["cells"]] == [f"cells/{name}" for name in FOLDERS]
    assert {cell["status"] for cell in document["cells"]} == {"finished"}
    rows = {row["label"]: row for row in document["rows"] if row["role"] == "scheme"}
    assert list(rows) == ["prenorm", "wav", "prenorm-h33"]
    for label, row in rows.items():
        tried = {rate: mean_of_last(collected, f"{label}-lr{rate}-L2-s1") for rate in (0.001, 0.01)}
        assert row["lr"] == min(tried, key=tried.get)
        assert row["loss"] == pytest.approx(mean_of_last(collected, f"{label}-L2-s2"))
    assert rows["prenorm-h33"]["wider_for"] == ["wav"]
    assert abs(rows["prenorm-h33"]["parameters"] / rows["wav"]["parameters"] - 1) < 0.01
    wav = rows["wav"]
    assert wav["parameter_share"] > 0.01 and wav["spikes"] == 0
    assert wav["noise_floor"] is None and wav["p_holm"] is None  # of one seed
    base = rows["prenorm"]
    assert base["tokens_to_target"] <= 12 * 2 * 16
    assert base["seconds_to_target"] == pytest.approx(
        base["tokens_to_target"] / base["tokens_per_s"]
    )
    fitted = wav["equal_loss_compute"] is not None
    assert fitted != (wav["equal_loss_why"] is not None)
    if fitted:
        speed_up = wav["equal_loss_compute"] * wav["speed_ratio"]
        assert wav["effective_speedup"] == pytest.approx(speed_up)
    assert "Learning rates, the best of 2 on the first seed" in document["summary"]


def test_budgets_evaluate_at_the_same_stages(collected):
    steps = {}
    for name in ("prenorm-L2-s2", "prenorm-x0.5-L2-s2", "prenorm-x2-L2-s2"):
        rows = [json.loads(x) for x in (collected / "cells" / name / "metrics.jsonl").open()]
        steps[name] = [row["step"] for row in rows if "val_loss" in row]
    whole = steps["prenorm-L2-s2"]
    assert steps["prenorm-x0.5-L2-s2"] == [step // 2 for step in whole]
    assert steps["prenorm-x2-L2-s2"] == [2 * step for step in whole]


def test_rows_are_a_csv_and_a_database(collected):
    document = json.loads((collected / "compare.json").read_text())
    with (collected / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [row["label"] for row in document["rows"]]
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in document["rows"]]
    with closing(sqlite3.connect(collected / "rows.sqlite")) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        losses = database.execute("select label, loss, p_holm from rows").fetchall()
        assert losses == [(row["label"], row["loss"], row["p_holm"]) for row in document["rows"]]
        (cells,) = database.execute("select count(*) from cells where val_loss > 0").fetchone()
    assert cells == len(FOLDERS)


def test_threads_are_divided_among_cells_side_by_side(wavroute, grid, tmp_path):
    text = assert_ok(
        wavroute("compare", grid, "--out", tmp_path / "out", "--dry-run", "--set",
                 "train.threads=2", "--set", "compare.lrs=[]", "--set", "compare.budgets=[]")
    )  # fmt: skip
    assert text.splitlines()[-2].endswith("for 6 cells, 2 at a time with 1 thread each")
    assert "3 steps were tried" in text
