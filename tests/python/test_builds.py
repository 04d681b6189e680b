"""bench/same.py and bench/pace.py: two builds of the command held against each other."""

import csv
import json
import math
import struct
import sys
from types import SimpleNamespace

import paths
import pytest

sys.path.insert(0, str(paths.REPOSITORY / "bench"))
import binaries  # noqa: E402
import pace  # noqa: E402
import same  # noqa: E402

METRICS = ['{"step":1,"loss":5.25,"grad_norm":2.0,"step_ms":3.5}',
           '{"step":2,"loss":4.5,"grad_norm":1.5,"step_ms":3.1}', '{"step":2,"val_loss":4.75}']


def safetensors(**tensors: bytes) -> bytes:
    """Tensors of F32, each of one dimension."""
    header, at = {}, 0
    for name, content in tensors.items():
        header[name] = {"dtype": "F32", "shape": [len(content) // 4],
                        "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@pytest.fixture
def runs(tmp_path):
    """Two equal run folders; the last checkpoint is not the last by name."""
    for name in ("old", "new"):
        for step, value in ((8, 0.25), (12, 1.0)):
            checkpoint = tmp_path / name / "checkpoints" / f"step_{step}"
            checkpoint.mkdir(parents=True)
            model = safetensors(embedding=floats(0.5, -0.0), head=floats(value, 2.0, math.nan))
            (checkpoint / "model.safetensors").write_bytes(model)
            (checkpoint / "optimizer.safetensors").write_bytes(safetensors(m=floats(3.0, 4.0)))
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(METRICS) + "\n")
    return tmp_path / "old", tmp_path / "new"


def change(path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_equal_runs_have_no_difference(runs):
    slower = runs[1] / "metrics.jsonl"
    slower.write_text(slower.read_text().replace('"step_ms":3.5', '"step_ms":9.5'))
    (runs[1] / "checkpoints" / "step_8" / "model.safetensors").write_bytes(b"not the last one")
    assert same.run_differences(*runs) == []


@pytest.mark.parametrize("name, numbers", (("model.safetensors", 5), ("optimizer.safetensors", 2)))
def test_every_changed_byte_of_a_tensor_is_found(runs, name, numbers):
    path = runs[1] / "checkpoints" / "step_12" / name
    kept = path.read_bytes()
    for at in range(len(kept) - 4 * numbers, len(kept)):
        change(path, at)
        found, = same.run_differences(*runs)
        assert found.startswith(f"{name}: 1 of {numbers} numbers differ, by at most "), (at, found)
        path.write_bytes(kept)


def test_a_difference_says_how_large_it_is_and_where():
    old = safetensors(a=floats(1.0, 2.0), b=floats(3.0))
    assert same.tensor_difference(old, safetensors(a=floats(1.5, 2.0), b=floats(1.0))) == (
        "2 of 3 numbers differ, by at most 2 (b)")
    assert "by at most inf (a)" in same.tensor_difference(
        old, safetensors(a=floats(math.nan, 2.0), b=floats(3.0)))
    assert "1 of 1 numbers differ, by at most 0 (a)" == same.tensor_difference(
        safetensors(a=floats(0.0)), safetensors(a=floats(-0.0)))


def test_other_tensors_and_other_headers_are_differences():
    old = safetensors(a=floats(1.0, 2.0))
    assert same.tensor_difference(old, safetensors(b=floats(1.0, 2.0))) == "other tensors: a, b"
    assert same.tensor_difference(old, old[:20]) == "no longer a safetensors file"
    spaced = old[8:].replace(b'"dtype": ', b'"dtype":  ')
    spaced = (int.from_bytes(old[:8], "little") + 1).to_bytes(8, "little") + spaced
    assert same.tensor_difference(old, spaced) == "the same numbers, another header"


def test_bf16_is_read_as_the_upper_half_of_a_float():
    values, bits = same.numbers("BF16", struct.pack("<2H", 0x3F80, 0xC000))
    assert values.tolist() == [1.0, -2.0] and len(bits) == 2


def test_a_loss_in_its_last_digit_is_a_difference(runs):
    path = runs[1] / "metrics.jsonl"
    after = math.nextafter(4.75, 5)
    path.write_text(path.read_text().replace("4.75", repr(after)))
    assert same.run_differences(*runs) == [
        f"metrics.jsonl: val_loss of step 2 by {after - 4.75:.3g}: 4.75, then {after!r}"]


def test_lines_and_losses_that_are_gone_are_differences():
    assert same.metrics_difference("\n".join(METRICS), "\n".join(METRICS[:2])) == (
        "2 lines, 3 before")
    assert same.metrics_difference(METRICS[2], '{"step":2}') == "val_loss of step 2: 4.75, then None"
    assert same.metrics_difference(METRICS[2], '{"step":2,"val_loss":4.75,"more":1}') == ""


def imitation(tmp_path, command: str):
    """A build that does what the built command does but for `command`, words of a shell."""
    path = tmp_path / "imitation"
    path.write_text(f'#!/bin/sh\nset -- {paths.program("wavroute")} "$@"\n{command}\nexec "$@"\n')
    path.chmod(0o755)
    return path


def test_the_schemes_are_those_of_the_registry(wavroute):
    registry = (paths.REPOSITORY / "src" / "residual" / "schemes.def").read_text()
    expected = [line[7:-1] for line in registry.splitlines() if line.startswith("SCHEME(")]
    assert binaries.Binary(paths.program("wavroute")).schemes() == expected


QUICK = ("--schemes", "wav", "--only", "fp32, micro")


def test_a_build_is_the_same_as_itself(wavroute, capsys):
    program = str(paths.program("wavroute"))
    assert same.main([program, program, *QUICK]) == 0
    assert "wav fp32, micro-batches" in capsys.readouterr().out


def test_a_build_that_trains_otherwise_is_found(wavroute, tmp_path, capsys):
    other = imitation(tmp_path, '[ "$2" != train ] || set -- "$@" --set optimizer.eps=1.1e-8')
    assert same.main([str(paths.program("wavroute")), str(other), *QUICK]) == 1
    told = capsys.readouterr().out
    for name in ("model.safetensors", "optimizer.safetensors", "metrics.jsonl"):
        assert f"{name}: " in told
    assert told.endswith("0 same, 1 differs, 0 skipped\n")


def test_schemes_that_one_build_lacks_are_named(monkeypatch, capsys):
    monkeypatch.setattr(same, "Binary", lambda schemes: SimpleNamespace(
        commit="c", schemes=lambda: schemes.split()))
    monkeypatch.setattr(same, "judge", lambda *_: ("same", [""]))
    assert same.main(["a b", "a b c"]) == 0
    assert "c                                    skipped  the old one doesn't know it" in (
        capsys.readouterr().out)
    assert same.main(["a b", "a"]) == 1
    with pytest.raises(binaries.Unusable):
        same.main(["a", "b", "--schemes", "c"])


@pytest.mark.parametrize("count", (6, 7, 9, 40, 41))
def test_the_interval_has_its_probability_by_counting(count):
    low, high = pace.median_interval(list(range(1, count + 1))[::-1])
    assert low == count + 1 - high  # as many values below as above
    # Each value lies below the median or above it like a coin: the interval misses the median where
    # fewer than `low` values are on one side.
    def missed(fewest):
        return 2 * sum(math.comb(count, k) for k in range(fewest)) / 2**count
    assert missed(low) <= 0.05 < missed(low + 1)


def test_the_interval_of_40_rounds_is_that_of_printed_tables():
    assert pace.median_interval(range(1, 41)) == (14, 27)


def test_too_few_rounds_have_no_interval():
    with pytest.raises(binaries.Unusable):
        pace.median_interval([1.0] * 5)


class FixedWorker:
    """Takes the times it is given; `log` is who was stepped."""

    def __init__(self, name, times, log):
        self.name, self.times, self.log, self.busy_seconds = name, iter(times), log, 0.0

    def step(self):
        self.log.append(self.name)
        return {"ms": next(self.times), "loss": 1.0}

    def cpu_seconds(self):
        return self.busy_seconds


def test_a_ratio_is_of_one_round_and_the_order_alternates(monkeypatch):
    monkeypatch.setattr(pace, "SETTLE_SECONDS", 0)
    log, pair = [], pace.Pair()
    old = FixedWorker("old", [10, 20, 40, 60, 6, 6], log)
    new = FixedWorker("new", [10, 10, 50, 50, 12, 12], log)
    for _ in range(3):
        pair.round(old, new, 2)
    assert log == ["old", "old", "new", "new"] + ["new", "new", "old", "old"] + [
        "old", "old", "new", "new"]
    assert pair.old_ms == [15, 50, 6] and pair.new_ms == [10, 50, 12]
    assert pair.ratios == [1.5, 1.0, 0.5] and pair.losses_agree


def test_time_of_the_idle_one_and_of_others_is_told_apart(monkeypatch):
    monkeypatch.setattr(pace, "SETTLE_SECONDS", 0)
    pair, clock = pace.Pair(), [0.0]
    old, new = FixedWorker("old", [], []), FixedWorker("new", [], [])
    of_machine = [0.0]

    def stepped(active, idle):
        def step():
            clock[0] += 2.0  # seconds; all programs together take 3.7 of them on some cores
            active.busy_seconds += 3.0
            idle.busy_seconds += 0.2
            of_machine[0] += 3.7
            return {"ms": 2000.0, "loss": 1.0}
        return step

    old.step, new.step = stepped(old, new), stepped(new, old)
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(pace, "machine_cpu_seconds", lambda: of_machine[0])
    pair.round(old, new, 1)
    assert pair.idle_percent == pytest.approx(10) and pair.others_percent == pytest.approx(25)


def test_two_builds_are_stepped_and_a_row_is_kept(wavroute, tmp_path, capsys):
    program, file = str(paths.program("wavroute")), tmp_path / "pace.csv"
    given = [program, program, "--config", "tiny", "--set", "model.layers=2", "--schemes", "prenorm",
             "--precision", "fp32", "--rounds", "6", "--steps", "1", "--starts", "1", "--csv",
             str(file)]
    assert pace.main([*given, "--above", "0"]) == 0
    assert "losses differ" not in capsys.readouterr().out
    first, = csv.DictReader(file.read_text().splitlines())
    assert list(first) == list(pace.COLUMNS)
    assert (first["scheme"], first["layers"], first["width"], first["rounds"]) == (
        "prenorm", "2", "32", "6")
    assert float(first["ratio_low"]) <= float(first["ratio"]) <= float(first["ratio_high"])
    assert str(tmp_path) not in file.read_text() and program not in file.read_text()


@pytest.mark.parametrize("low, code", ((0.981, 0), (0.98, 1), (0.9, 1)))
def test_the_lower_end_of_the_interval_decides(monkeypatch, tmp_path, capsys, low, code):
    pair = pace.Pair()
    pair.old_ms, pair.new_ms = [low] + [1.5] * 5, [1.0] * 6  # of six, the smallest is the lower end
    shape = dict.fromkeys(pace.SHAPE, 1)
    monkeypatch.setattr(pace, "measure", lambda *_: (pair, shape))
    monkeypatch.setattr(pace, "Binary", lambda name: SimpleNamespace(
        commit=name, facts={"cpu": "a", "cores": 2, "threads": 2}))
    file = tmp_path / "pace.csv"
    for _ in range(2):
        assert pace.main(["old", "new", "--rounds", "6", "--csv", str(file)]) == code
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [(row["scheme"], row["precision"]) for row in rows] == 2 * [
        (scheme, precision) for scheme in ("prenorm", "wav") for precision in ("bf16", "fp32")]
    assert {(row["commit"], row["old_commit"], row["ratio"]) for row in rows} == {
        ("new", "old", "1.5000")}


def test_a_file_of_other_columns_is_left_as_it_is(tmp_path):
    file = tmp_path / "pace.csv"
    file.write_text("date,commit\n")
    with pytest.raises(binaries.Unusable):
        pace.append_row(file, dict.fromkeys(pace.COLUMNS, ""))
    assert file.read_text() == "date,commit\n"


def test_what_is_no_build_is_an_error_of_one_line(tmp_path, monkeypatch, capsys):
    text = tmp_path / "text"
    text.write_text("no program")
    for given in (text, tmp_path / "nothing"):
        monkeypatch.setattr(sys, "argv", ["same.py"])
        with pytest.raises(SystemExit) as ended:
            binaries.run(lambda: same.main([str(given), str(given)]))
        told = capsys.readouterr().err
        assert ended.value.code == 2 and told.startswith("same: expected ") and (
            len(told.splitlines()) == 1)
