"""`wavroute bench` and `wavroute doctor`, as a program would read them."""

import csv
import json
import os
import subprocess
import sys

import paths
import pytest
from cli_tools import assert_error, write_project

FIELDS = ("scheme", "provider", "precision", "layers", "width", "batch", "context", "ms_p20",
          "ms_p50", "ms_p80", "tokens_per_s", "peak_rss_bytes", "percent_of_peak")
QUICK = ("--rounds", "2", "--warmup", "1", "--json", "--set", "model.layers=2")


def rows(done) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_object_per_scheme_with_the_documented_fields(wavroute):
    found = rows(wavroute("bench", "step", "tiny", "--schemes", "prenorm,wav", "--baselines",
                          "none", "--precision", "fp32", *QUICK))
    assert [(row["scheme"], row["provider"]) for row in found] == [
        ("prenorm", "wavroute"), ("wav", "wavroute")]
    for row in found:
        assert set(FIELDS) <= row.keys()
        assert row["precision"] == "fp32" and row["layers"] == 2
        assert 0 < row["ms_p20"] <= row["ms_p50"] <= row["ms_p80"]
        tokens = row["batch"] * row["context"]
        assert row["tokens_per_s"] == pytest.approx(tokens / row["ms_p50"] * 1e3)
        assert 0 < row["percent_of_peak"] <= 100


def test_the_baseline_does_the_same_work(wavroute, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("WAVROUTE_PYTHON", sys.executable)
    monkeypatch.setenv("WAVROUTE_BASELINE", str(paths.REPOSITORY / "bench" / "baseline.py"))
    ours, eager = rows(wavroute("bench", "step", "tiny", "--schemes", "wav", "--baselines",
                                "eager", "--precision", "fp32", *QUICK))
    assert (ours["provider"], eager["provider"]) == ("wavroute", "eager")
    for field in ("layers", "width", "batch", "context", "parameters"):
        assert ours[field] == eager[field], field
    assert ours["flops_per_step"] == pytest.approx(eager["flops_per_step"], rel=0.02)


def test_a_vocabulary_of_characters_is_timed_as_such(wavroute, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    monkeypatch.setenv("WAVROUTE_PYTHON", sys.executable)
    monkeypatch.setenv("WAVROUTE_BASELINE", str(paths.REPOSITORY / "bench" / "baseline.py"))
    config = write_project(tmp_path)
    ours, eager = rows(wavroute("bench", "step", config, "--schemes", "prenorm", "--baselines",
                                "eager", "--rounds", "1", "--warmup", "1", "--json"))
    vocabulary = len(set((tmp_path / "train.txt").read_text()))
    layer = 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16
    assert ours["parameters"] == eager["parameters"] == 2 * vocabulary * 16 + 16 + 2 * layer


def test_what_the_baseline_does_not_support_is_skipped_with_a_word(wavroute, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("WAVROUTE_PYTHON", sys.executable)
    monkeypatch.setenv("WAVROUTE_BASELINE", str(paths.REPOSITORY / "bench" / "baseline.py"))
    done = wavroute("bench", "step", "tiny", "--schemes", "rezero,wav", *QUICK,
                    "--set", "residual.details=[]", "--set", "model.tie_embeddings=false")
    assert [row["provider"] for row in rows(done)] == ["wavroute", "wavroute"]
    assert "baselines of rezero are skipped: it has no PyTorch baseline" in done.stderr
    assert "baselines of wav are skipped: the baseline has no option 'details'" in done.stderr


def test_without_torch_the_baselines_are_skipped_with_a_word(wavroute, monkeypatch):
    monkeypatch.setenv("WAVROUTE_PYTHON", "no-such-python")
    done = wavroute("bench", "step", "tiny", "--schemes", "prenorm", *QUICK)
    assert [row["provider"] for row in rows(done)] == ["wavroute"]
    assert "baselines are skipped: 'no-such-python' is not a Python that runs" in done.stderr


def test_csv_rows_are_appended_under_one_header(wavroute, tmp_path):
    file = tmp_path / "rows.csv"
    quiet, = rows(wavroute("bench", "step", "tiny", "--schemes", "prenorm", "--baselines", "none",
                           "--csv", file, *QUICK))
    both, = rows(wavroute("bench", "step", "tiny", "--schemes", "prenorm", "--baselines", "none",
                          "--csv", file, *QUICK, "--busy", "2"))
    assert quiet["busy"] == 0 and both["busy"] == 2
    assert 0 < both["busy_ms_p20"] <= both["busy_ms_p50"] <= both["busy_ms_p80"]
    kept = list(csv.DictReader(file.read_text().splitlines()))
    assert list(kept[0])[:2] == ["date", "commit"] and list(kept[0])[-1] == "busy"
    assert [(row["provider"], row["busy"]) for row in kept] == [
        ("wavroute", "0"), ("wavroute", "0"), ("wavroute", "2")]
    for row, ms in zip(kept, (quiet["ms_p50"], both["ms_p50"], both["busy_ms_p50"])):
        assert float(row["ms_p50"]) == pytest.approx(ms, abs=1e-3)


@pytest.mark.parametrize("arguments", (
    ("--schemes", "nonsense"), ("--rounds", "0"), ("--baselines", "jax"),
    ("--schemes", "prenorm", "--set", "residual.blocks=1"), ("--set", "model.layer=2")))
def test_wrong_use_is_exit_two_before_any_step(wavroute, arguments):
    done = wavroute("bench", "step", "tiny", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("wavroute: ") and "first step" not in done.stderr


def test_doctor_fits_a_screen_and_agrees_with_its_json(wavroute):
    found = json.loads(wavroute("doctor", "--json").stdout)
    screen = wavroute("doctor").stdout
    assert len(screen.splitlines()) <= 24
    for field in ("wavroute", "compiler", "torch", "torch_folder", "cpu", "precision_auto"):
        assert found[field] and found[field] in screen, field
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["memory_available"] <= found["memory_total"]


def openmp(wavroute, **settings) -> tuple[dict, str]:
    """Doctor's line on waiting, and the library's own output (OMP_DISPLAY_ENV)."""
    done = wavroute("doctor", "--json", env={"OMP_DISPLAY_ENV": "VERBOSE", **settings})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture
def no_settings(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "WAVROUTE_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)


def test_openmp_is_told_to_spin_for_a_moment_before_it_is_loaded(wavroute, no_settings):
    found, library = openmp(wavroute)
    name, count = found["openmp_waiting"].split("=")
    assert found["openmp_waiting_is_ours"] is True
    assert name == "GOMP_SPINCOUNT" and 0 < int(count) <= 10000
    if "GOMP_SPINCOUNT" in library:  # this OpenMP is GNU's
        assert f"GOMP_SPINCOUNT = '{count}'" in library and library.count("GOMP_SPINCOUNT") == 1


@pytest.mark.parametrize("name, value", (("GOMP_SPINCOUNT", "77"), ("OMP_WAIT_POLICY", "passive")))
def test_a_users_own_word_on_waiting_stands(wavroute, no_settings, name, value):
    found, library = openmp(wavroute, **{name: value})
    assert found["openmp_waiting"] == f"{name}={value}"
    assert found["openmp_waiting_is_ours"] is False
    if "GOMP_SPINCOUNT" in library:
        assert f"{name} = '{value.upper()}'" in library
        assert "GOMP_SPINCOUNT = '1000'" not in library


def test_threads_are_the_users_omp_num_threads(wavroute):
    assert openmp(wavroute, OMP_NUM_THREADS="3")[0]["threads"] == 3
    done = wavroute("bench", "peak", "--json", env={"OMP_NUM_THREADS": "1"})
    assert {row["threads"] for row in rows(done)} == {1}


@pytest.mark.parametrize("name, value", (("OMP_PROC_BIND", "true"), ("OMP_PLACES", "{0}")))
def test_cores_are_counted_before_openmp_binds_the_first_thread(
    wavroute, monkeypatch, name, value
):
    for other in ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"):
        monkeypatch.delenv(other, raising=False)
    cores = openmp(wavroute)[0]["cores"]
    assert openmp(wavroute, **{name: value})[0]["cores"] == cores


@pytest.mark.parametrize("arguments, threads", (
    (("bench", "peak", "--threads", "100000"), "1"), (("bench", "peak"), "100000"),
    (("train", "tiny", "--dry-run", "--set", "train.threads=100000"), "1")))
def test_threads_far_beyond_the_machine_are_refused_with_the_limit(wavroute, arguments, threads):
    assert_error(wavroute(*arguments, env={"OMP_NUM_THREADS": threads}),
                 "threads on a machine", "given 100000")


def test_every_usable_instruction_set_can_be_forced_and_trains_alike(wavroute, tmp_path):
    names = json.loads(wavroute("doctor", "--json").stdout)["usable_kernels"]
    assert names[0] == "portable"
    losses = []
    for name in names:
        forced = {"WAVROUTE_ISA": name}
        assert json.loads(wavroute("doctor", "--json", env=forced).stdout)["kernels"] == name
        done = wavroute("train", "tiny", "--out", tmp_path / name, "--set", "train.steps=4",
                        "--set", "residual.scheme=wav", "--set", "train.precision=fp32",
                        "--set", "sample.tokens=0", env=forced)
        assert done.returncode == 0, done.stderr
        last = (tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1]
        losses.append(json.loads(last)["val_loss"])
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-4)


def test_an_instruction_set_that_is_not_there_is_exit_two(wavroute):
    done = wavroute("doctor", env={"WAVROUTE_ISA": "sse9"})
    assert done.returncode == 2 and "portable" in done.stderr and "hint:" in done.stderr


def test_peaks_are_positive_numbers(wavroute):
    found = rows(wavroute("bench", "peak", "--threads", "1", "--json"))
    assert [row["peak"] for row in found] == [
        "product_fp32", "product_bf16", "read_memory", "copy_memory", "copy_cache"]
    for row in found:
        assert row["value"] > 0 and row["unit"] in ("GFLOP/s", "GB/s") and row["threads"] == 1
    one, = rows(wavroute("bench", "peak", "read_memory", "--threads", "1", "--json"))
    assert one["peak"] == "read_memory" and one["unit"] == "GB/s"


OP_FIELDS = {"operator", "mode", "size", "precision", "tokens", "width", "threads", "ms_p20",
             "ms_p50", "ms_p80", "composed_ms_p50", "ratio", "gb_per_s", "gflop_per_s",
             "percent_of_peak"}
QUICK_OP = ("--tokens", "64", "--rounds", "2", "--threads", "1")


def op_rows(done) -> list[dict]:
    found = rows(done)
    for row in found:
        assert row.keys() == OP_FIELDS
        assert 0 < row["ms_p20"] <= row["ms_p50"] <= row["ms_p80"] and row["percent_of_peak"] > 0
        assert row["ratio"] == pytest.approx(row["composed_ms_p50"] / row["ms_p50"])
        is_bound_by_arithmetic = row["operator"] == "attention"
        assert (row["gb_per_s"] is None) == is_bound_by_arithmetic
        assert (row["gflop_per_s"] is None) != is_bound_by_arithmetic
    return found


def test_an_operator_has_a_row_per_mode_width_and_precision(wavroute):
    found = op_rows(wavroute("bench", "op", "norm", *QUICK_OP, "--json"))
    assert [(row["width"], row["precision"], row["mode"]) for row in found] == [
        (width, precision, mode) for width in (256, 512) for precision in ("fp32", "bf16")
        for mode in ("forward", "backward")]
    assert {row["tokens"] for row in found} == {64}


def test_every_operator_that_the_help_lists_is_timed(wavroute):
    listed = wavroute("bench", "op", "--help").stdout.split("Operators:\n")[1].splitlines()
    found = op_rows(wavroute("bench", "op", *QUICK_OP, "--width", "64", "--json"))
    assert {row["operator"] for row in found} == {line.split()[0] for line in listed if line}
    sources = [(row["precision"], row["size"]) for row in found if row["operator"] == "route_mix"]
    assert sources == [(precision, f"64 x 64, {count} sources") for precision in ("fp32", "bf16")
                       for count in (1, 4, 10, 19)]


def test_rows_of_operators_are_appended_under_one_header(wavroute, tmp_path):
    file = tmp_path / "ops.csv"
    for _ in range(2):
        op_rows(wavroute("bench", "op", "sum_of_squares", *QUICK_OP, "--width", "64", "--csv", file,
                         "--json"))
    header, first, second = csv.reader(file.read_text().splitlines())
    assert header[:2] == ["date", "commit"] and header[-1] == "percent_of_peak"
    assert len(header) == len(first) == len(second)


@pytest.mark.parametrize("arguments", (
    ("bench", "op", "sum_of_squares", *QUICK_OP, "--width", "64", "--precision", "fp32"),
    ("bench", "step", "tiny", "--schemes", "prenorm", "--baselines", "none", *QUICK)),
    ids=("op", "step"))
def test_rows_that_can_not_be_printed_are_kept_all_the_same(tmp_path, arguments):
    file = tmp_path / "rows.csv"
    with open("/dev/full", "w") as full:
        done = subprocess.run([paths.program("wavroute"), *arguments, "--csv", file], stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=120)
    assert_error(done, "standard output", "No space left", code=1)
    header, *kept = csv.reader(file.read_text().splitlines())
    assert kept and all(len(row) == len(header) for row in kept)


def test_rows_that_can_not_be_kept_are_printed_all_the_same(wavroute, tmp_path):
    done = wavroute("bench", "op", "sum_of_squares", *QUICK_OP, "--width", "64", "--precision", "fp32",
                    "--json", "--csv", tmp_path / "missing" / "rows.csv")
    assert done.returncode == 2 and "missing" in done.stderr
    assert {row["operator"] for row in map(json.loads, done.stdout.splitlines())} == {
        "sum_of_squares"}


def test_an_unknown_operator_is_answered_with_the_nearest(wavroute):
    done = wavroute("bench", "op", "swigloo")
    assert_error(done, "'swigloo'", "did you mean 'swiglu'?")
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", (("--width", "100"), ("--rounds", "0"), ("--tokens", "-1")))
def test_an_impossible_size_is_exit_two(wavroute, arguments):
    done = wavroute("bench", "op", "norm", *arguments)
    assert done.returncode == 2 and done.stdout == ""
