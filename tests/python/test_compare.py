"""wavroute compare: a grid, its table, its files; killed and resumed; a cell that diverges."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets, start, wait_until, write_project
from compare_tools import VARIANTS, losses, mean_of_last, write_grids

CELLS = ["prenorm-L2-s1", "prenorm-L2-s2", "wav-L2-s1", "wav-L2-s2"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_grids(tmp_path_factory.mktemp("compare"))


def interval(table):
    """The paired difference and its half width in the table's row of wav."""
    (row,) = (line for line in table.splitlines() if re.match(r"\s+2\s+wav\s", line))
    found = re.search(r"([+\u2212-])([\d.]+) \u00b1 ([\d.]+) \(n=2\)", row)
    return (1 if found[1] == "+" else -1) * float(found[2]), float(found[3])


def test_a_grid_gives_a_table_its_files_and_the_same_again_after_a_kill(
    wavroute, project, tmp_path
):
    whole = tmp_path / "whole"
    table = assert_ok(
        wavroute("compare", project / "grid.toml", "--out", whole, "--speed-rounds", 1)
    )
    expected = losses(whole)
    assert list(expected) == CELLS
    for cell in CELLS:  # the grid reads what the runs wrote
        rows = [json.loads(x) for x in (whole / "cells" / cell / "metrics.jsonl").open()]
        assert rows[-1]["val_loss"] == expected[cell]
    # Student's t with one degree of freedom: 12.706 standard errors.
    means = {cell: mean_of_last(whole, cell) for cell in CELLS}
    first, second = (means[f"wav-L2-s{s}"] - means[f"prenorm-L2-s{s}"] for s in (1, 2))
    difference, half = interval(table)
    assert difference == pytest.approx((first + second) / 2, abs=6e-5)
    assert half == pytest.approx(12.7062 * abs(first - second) / 2, abs=6e-5)
    assert "<html" in (whole / "report.html").read_text()
    speed = json.loads((whole / "compare.json").read_text())["speed"]
    assert [(row["label"], row["tokens_per_s"] > 0) for row in speed] == [
        ("prenorm", True),
        ("wav", True),
    ]

    with open("/dev/full", "w") as full:  # a result beyond the stream's buffer, read to its end
        again = [paths.program("wavroute"), "compare", project / "grid.toml", "--out", whole, "--json",
                 "--resume", "auto", "--speed-rounds", "0"]
        done = subprocess.run(again, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1 and "No space left" in done.stderr, done.stderr
    assert (whole / "compare.json").stat().st_size > 4096

    killed = tmp_path / "killed"
    arguments = ["compare", project / "grid.toml", "--out", killed, "--speed-rounds", 0]
    process = start(*arguments, start_new_session=True)
    assert wait_until((killed / "cells" / CELLS[1] / "metrics.jsonl").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    done = (killed / "cells" / CELLS[0] / "metrics.jsonl").read_bytes()
    assert not (killed / "cells" / CELLS[3]).exists()
    assert_error(wavroute(*arguments), killed, "--resume auto")
    assert_ok(wavroute(*arguments, "--resume", "auto"))
    assert losses(killed) == expected
    assert (killed / "cells" / CELLS[0] / "metrics.jsonl").read_bytes() == done


@pytest.mark.parametrize(
    "receiver",
    [
        "group",  # Ctrl-C on a terminal
        "parent",  # kill PID, a service manager
    ],
)
def test_a_stopped_grid_says_how_to_go_on(wavroute, project, tmp_path, receiver):
    out = tmp_path / "out"
    arguments = ["compare", project / "grid.toml", "--out", out, "--speed-rounds", 0]
    process = start(*arguments, *sets(train__steps=100000), start_new_session=True)
    try:
        assert wait_until((out / "cells" / CELLS[0] / "metrics.jsonl").exists, process)
        if receiver == "group":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=8)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1, stderr
    assert f"--out {out} --resume auto" in stderr
    assert not (out / "cells" / CELLS[1]).exists()
    result = wavroute(*arguments, "--resume", "auto", *sets(train__steps=5))
    assert_error(result, "train.steps")


def test_a_diverging_cell_is_marked_and_the_grid_goes_on(wavroute, project, tmp_path):
    out = tmp_path / "out"
    result = wavroute("compare", project / "variants.toml", "--out", out, "--speed-rounds", 0)
    assert result.returncode == 1
    cells = json.loads((out / "compare.json").read_text())["cells"]
    assert [(cell["label"], cell["status"]) for cell in cells] == [
        ("prenorm", "finished"),
        ("wild", "diverged"),
        ("mild", "finished"),
    ]
    assert cells[1]["val_loss"] is None and cells[1]["bits_per_byte"] is None
    table = result.stdout
    for label in ("prenorm", "wild", "mild"):
        assert re.search(rf"^\s+2\s+{label}\s", table, re.MULTILINE), table
    assert re.search(r"wild\s.*diverged", table), table
    assert "\u00b1" not in table  # one seed has no interval
    assert (out / "report.html").exists()


def test_json_prints_the_file(wavroute, project, tmp_path):
    out = tmp_path / "out"
    values = sets(train__steps=2, compare__seeds="[3]")
    arguments = ["--out", out, "--speed-rounds", 0, "--json", *values]
    printed = assert_ok(wavroute("compare", project / "grid.toml", *arguments))
    assert json.loads(printed) == json.loads((out / "compare.json").read_text())
    assert list(losses(out)) == ["prenorm-L2-s3", "wav-L2-s3"]


def expected_parameters(vocabulary, layers, routed):
    """Of small.toml: width 16, hidden 32; wav adds query, gain and two biases to all but one read."""
    width, hidden = 16, 32
    layer = 4 * width * width + 3 * width * hidden + 2 * width
    return (
        2 * vocabulary * width + width + layers * layer + routed * 2 * layers * (2 * width + 2)
    )


def seconds(text):
    """Of "1:02:03" or "02:03"."""
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return total


def test_a_dry_run_prints_the_plan_of_every_cell_and_writes_nothing(wavroute, project, tmp_path):
    out = tmp_path / "out"
    values = sets(compare__depths="[2, 4]", train__steps=10**8, residual__blocks="auto")
    call = ["compare", project / "grid.toml", "--out", out, "--dry-run"]
    text = assert_ok(wavroute(*call, *values))
    *plans, end = text.split("\n\n")
    vocabulary = len(set((project / "train.txt").read_text()))
    total = 0
    rows = [(depth, scheme) for depth in (2, 4) for scheme in ("prenorm", "wav")]
    assert len(plans) == len(rows)
    for plan, (depth, scheme) in zip(plans, rows, strict=True):
        heading, *lines = plan.splitlines()
        assert heading.startswith(f"{scheme}, {depth} layers:")
        assert heading.split()[-2:] == [f"{scheme}-L{depth}-s{seed}" for seed in (1, 2)]
        words = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines)
        count = expected_parameters(vocabulary, depth, scheme == "wav")
        assert words["parameters"] == f"{count:,}"
        assert "B = " in words["memory plan"] and "forward and backward" in words["FLOPs per token"]
        assert f"for {10**8} steps of 32 tokens" in words["expected time"]
        total += 2 * seconds(words["expected time"].split()[0])
    last = end.splitlines()[0]
    assert last.endswith("for 8 cells")
    assert seconds(last.split()[2]) == pytest.approx(total, abs=8)
    assert not out.exists()


def test_a_dry_run_agrees_with_that_of_train(wavroute, project):
    one = assert_ok(
        wavroute("compare", project / "grid.toml", "--dry-run", *sets(compare__schemes='["wav"]'))
    )
    train = assert_ok(wavroute("train", project / "small.toml", "--dry-run"))
    for name in ("parameters", "FLOPs per token", "memory plan"):
        (line,) = (line for line in train.splitlines() if line.startswith(name))
        assert line in one.splitlines()


def test_all_cells_share_one_micro_batch_that_a_resume_keeps(wavroute, tmp_path):
    folder = write_project(tmp_path).parent
    config, out = folder / "variants.toml", tmp_path / "out"
    config.write_text(
        VARIANTS.replace("1e30", "1e-3") + '[[compare.variant]]\nlabel = "one"\ntrain.batch = 1\n'
    )
    call = ["compare", config, "--out", out, "--speed-rounds", 0]
    assert_ok(wavroute(*call))

    def micro_batches():
        texts = {path.stem: path.read_text() for path in (out / "configs").glob("*.toml")}
        return {name: re.search(r"^micro_batch = (\d+)$", text, re.MULTILINE)[1]
                for name, text in texts.items()}  # fmt: skip

    expected = {"prenorm-L2-s1": "2", "wild-L2-s1": "2", "mild-L2-s1": "2", "one-L2-s1": "1"}
    assert micro_batches() == expected
    stored = out / "config.toml"
    assert "\nmicro_batch = 2\n" in stored.read_text()
    # As if less memory had been free on the first day.
    for path in (stored, *(out / "configs").glob("*.toml"), *out.glob("cells/*/config.toml")):
        path.write_text(path.read_text().replace("micro_batch = 2", "micro_batch = 1"))
    assert_ok(wavroute(*call, "--resume", "auto", *sets(compare__seeds="[1, 2]")))
    assert set(micro_batches().values()) == {"1"} and len(micro_batches()) == 8
    assert_error(wavroute(*call, "--resume", "auto", *sets(train__micro_batch=2)), "micro_batch")


def rows_of_plans(text):
    """The rows that each memory plan of a dry run counts with."""
    return [int(rows) for rows in re.findall(r"activations of (\d+) rows", text)]


def test_the_micro_batch_of_a_grid_is_the_one_that_its_largest_plan_fits(
    wavroute, with_memory, project
):
    free = 1170  # MB
    long = project / "long.txt"
    values = sets(model__context=1024, model__width=64, model__layers=8, train__batch=60,
                  data__train=long, data__valid=long)  # fmt: skip
    long.write_text((project / "train.txt").read_text() * 2)
    alone = {}
    for scheme in ("prenorm", "wav"):
        call = ["train", project / "small.toml", "--dry-run", *values]
        text = assert_ok(with_memory(free, *call, "--set", f"residual.scheme={scheme}"))
        (alone[scheme],) = rows_of_plans(text)
    assert 1 <= alone["wav"] < alone["prenorm"] < 60, "choose sizes that tell the schemes apart"
    grid = ["compare", project / "grid.toml", "--dry-run", *values]
    assert rows_of_plans(assert_ok(with_memory(free, *grid))) == [alone["wav"]] * 2
    assert rows_of_plans(assert_ok(wavroute(*grid))) == [60, 60]
    given = sets(train__micro_batch=alone["prenorm"])
    assert_error(with_memory(free, *grid, *given), "wav-L8-s1", "memory plan",
                 f"train.micro_batch = {alone['wav']} fits")  # fmt: skip


def test_speed_is_that_of_the_model_that_was_trained(wavroute, project, tmp_path):
    """A vocabulary of characters, not of bytes."""
    out = tmp_path / "out"
    values = sets(train__steps=1, compare__seeds="[1]", compare__schemes='["prenorm"]')
    assert_ok(
        wavroute("compare", project / "grid.toml", "--out", out, "--speed-rounds", 1, *values)
    )
    document = json.loads((out / "compare.json").read_text())
    vocabulary = len(set((project / "train.txt").read_text()))
    assert document["cells"][0]["parameters"] == expected_parameters(vocabulary, 2, False)
    assert [row["label"] for row in document["speed"]] == ["prenorm"]
    run = out / "cells" / "prenorm-L2-s1"
    worker = start("bench", "worker", run / "config.toml", "--vocab", vocabulary)
    assert json.loads(worker.stdout.readline())["parameters"] == document["cells"][0]["parameters"]
    worker.communicate()

    summary = json.loads((run / "summary.json").read_text())
    assert summary["vocab_size"] == vocabulary
    (run / "summary.json").write_text(json.dumps(summary | {"vocab_size": 256}))
    call = ["compare", project / "grid.toml", "--out", out, "--speed-rounds", 1, *values]
    result = wavroute(*call, "--resume", "auto")
    assert_ok(result)
    assert "no speed of prenorm L2" in result.stderr
    assert json.loads((out / "compare.json").read_text())["speed"] == []


def test_a_grid_goes_on_when_nobody_reads_what_it_says(wavroute, project, tmp_path):
    out = tmp_path / "out"
    values = sets(train__steps=2, compare__seeds="[1]")
    process = start("compare", project / "grid.toml", "--out", out, "--speed-rounds", 0, *values)
    process.stderr.close()
    table = process.stdout.read()
    assert process.wait(timeout=60) == 0
    assert list(losses(out)) == ["prenorm-L2-s1", "wav-L2-s1"]
    assert "wav" in table and (out / "report.html").exists()


def test_a_cell_does_not_outlive_its_grid(wavroute, project, tmp_path):
    out = tmp_path / "out"
    arguments = ["compare", project / "grid.toml", "--out", out, "--speed-rounds", 0]
    process = start(*arguments, *sets(train__steps=100000), start_new_session=True)
    try:
        assert wait_until((out / "cells" / CELLS[0] / "metrics.jsonl").exists, process)
        (cell,) = (Path(f"/proc/{process.pid}/task/{process.pid}/children")).read_text().split()
        process.kill()
        process.communicate(timeout=8)
        end = time.monotonic() + 20
        while Path(f"/proc/{cell}/cmdline").exists() and Path(f"/proc/{cell}/cmdline").read_text():
            assert time.monotonic() < end, "the cell lives on"
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_losses_of_another_text_are_no_distance(wavroute, project, tmp_path):
    """Two variants with two validation texts, one of another tokenizer; and the same as a report."""
    other = tmp_path / "other.txt"
    other.write_text((project / "train.txt").read_text()[:600])
    config, out = tmp_path / "texts.toml", tmp_path / "out"
    base = VARIANTS[: VARIANTS.index("[[")].replace("small.toml", str(project / "small.toml"))
    config.write_text(
        base.replace("seeds = [1]", "seeds = [1, 2]")
        + f'[[compare.variant]]\nlabel = "other text"\ndata.valid = "{other}"\n'
        + '[[compare.variant]]\nlabel = "bytes"\ndata.tokenizer = "bytes"\n'
        + '[[compare.variant]]\nlabel = "slow"\noptimizer.lr = 1e-5\n'
    )
    values = sets(train__steps=2, residual__scheme="prenorm")
    table = assert_ok(wavroute("compare", config, "--out", out, "--speed-rounds", 0, *values))
    document = json.loads((out / "compare.json").read_text())
    rows = {row["label"]: row for row in document["rows"]}
    assert rows["other text"]["not_compared"] == "another validation text"
    assert not rows["other text"]["bits_per_byte_compare"]
    assert rows["bytes"]["not_compared"] == "another tokenizer"
    assert rows["bytes"]["bits_per_byte_compare"]
    assert rows["slow"]["difference"]["n"] == 2 and rows["slow"]["not_compared"] is None
    assert "another validation text" in table and "another tokenizer, see bits/byte" in table
    intervals = [line for line in table.splitlines() if re.match(r"\s+2\s.*\u00b1", line)]
    assert len(intervals) == 1 and " slow " in intervals[0]
    measure = document["cells"][0]["measure"]
    assert measure["tokens"] == measure["bytes"] == 64

    page = tmp_path / "page.html"
    cells = sorted((out / "cells").iterdir())
    assert_ok(wavroute("report", *cells, cells[0], "-o", page))  # one of them twice
    text = page.read_text()
    assert "another validation text" in text and "another tokenizer" in text
    assert "optimizer.lr=1e-05" in text
