"""bench/curves.py and bench/gpu_peers.py, as far as they run without a GPU."""

import csv
import sys
from types import SimpleNamespace

import paths
import pytest

sys.path.insert(0, str(paths.REPOSITORY / "bench"))
import curves  # noqa: E402
import gpu_peers  # noqa: E402


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_curves_are_too_far_apart_by_what_rounding_makes_of_them():
    ours = [3.0 - 0.001 * step for step in range(300)]
    rounded = curves.distances(ours, [loss + 1e-3 * (-1) ** step
                                      for step, loss in enumerate(ours)])
    assert rounded["all_most"] == pytest.approx(1e-3) and abs(rounded["last_50_mean"]) < 1e-9
    for apart, too_far in ((3e-3, False), (5e-3, True)):
        other = curves.distances(ours, [loss + apart * (-1) ** step
                                        for step, loss in enumerate(ours)])
        assert curves.is_too_far(other, rounded, "fp32", above=4.0) == too_far
    shifted = curves.distances(ours, [loss + 2e-3 for loss in ours])  # a systematic error
    assert curves.is_too_far(shifted, rounded, "fp32", above=4.0)
    ended = curves.distances(ours, [float("nan")] * 300)
    assert curves.is_too_far(ended, rounded, "fp32", above=4.0)


def test_curves_are_trained_and_kept_as_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = tmp_path / "curves.csv"
    monkeypatch.setattr(sys, "argv", ["curves", str(paths.program("wavroute")), "--csv", str(file),
                                      "--schemes", "wav", "--precisions", "fp32", "--steps", "3",
                                      "--layers", "2", "--other", "composed"])
    assert curves.main() == 0, capsys.readouterr().err
    [row] = rows_of(file)
    assert (row["scheme"], row["precision"], row["other"]) == ("wav", "fp32", "composed")
    assert 0.0 <= float(row["all_most"]) < 1e-4 and 1.0 < float(row["loss"]) < 8.0


def test_packages_that_fail_are_named_and_the_others_have_rows(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")

    def missing():
        raise ImportError("no module of this name")

    def wrong():
        return lambda sources, query, gain: sources[0]
    known = gpu_peers.readers(torch, "cpu")
    monkeypatch.setattr(gpu_peers, "readers", lambda *_: {
        "missing": ("torch", missing), "wrong": ("torch", wrong), **known})
    monkeypatch.setattr(gpu_peers, "ROUNDS", 3)
    file = tmp_path / "peers.csv"
    table = gpu_peers.Table(file, "cpu")
    gpu_peers.bench_reads(torch, table, SimpleNamespace(device="cpu", tokens=16))
    left_out = capsys.readouterr().err
    assert "left out: missing" in left_out and "no module of this name" in left_out
    assert "left out: wrong" in left_out and "not the formula's" in left_out
    rows = rows_of(file)
    assert [(row["provider"], row["measure"]) for row in rows] == [
        ("eager", "read"), ("eager", "read_and_backward")]
    assert all(float(row["ms_p20"]) <= float(row["ms_p80"]) for row in rows)
