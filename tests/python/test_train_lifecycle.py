"""A run whose terminal, text, steps or machine change under it."""

import json
import math
import os
import pty
import shutil
import signal
import subprocess

import paths
import pytest
from cli_tools import (
    assert_equal_runs,
    assert_error,
    assert_ok,
    rows,
    sets,
    start,
    steps_of,
    wait_until,
    write_project,
)

LONG = sets(train__steps=2000, train__save_every=0, train__eval_every=0)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("lifecycle"))


def warnings(result):
    return [line for line in result.stderr.splitlines() if line.startswith("wavroute: ")]


def has_begun(run):
    return lambda: (run / "metrics.jsonl").exists() and len(rows(run)) >= 5


def status(run):
    return json.loads((run / "summary.json").read_text())["status"]


def test_a_terminal_that_goes_away_saves_like_a_signal(wavroute, project, tmp_path):
    out = tmp_path / "run"
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [str(paths.program("wavroute")), "train", str(project), "--out", str(out), *LONG],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # tests may run under nohup
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    os.close(terminal)
    drained = []

    def begun():
        os.set_blocking(controller, False)
        try:
            drained.append(os.read(controller, 65536))
        except BlockingIOError:
            pass
        return has_begun(out)()

    assert wait_until(begun, process)
    assert status(out) == "running"
    os.close(controller)  # from now on its terminal answers with EIO
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 1
    last = rows(out)[-1]["step"]
    assert last < 2000 and steps_of(out) == [last]
    assert status(out) == "stopped"
    log = (out / "train.log").read_text()
    assert f"stopped at step {last}; a checkpoint is written" in log and "--resume auto" in log


def test_nohup_is_left_alone(project, tmp_path):
    out = tmp_path / "run"
    values = sets(train__steps=300, train__save_every=0, train__eval_every=0)
    process = start(
        "train", project, "--out", out, "-q", *values,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert wait_until(has_begun(out), process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 0
    assert steps_of(out) == [300]


def test_a_full_standard_output_is_no_reason_to_stop(project, finished, tmp_path):
    out = tmp_path / "run"
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [str(paths.program("wavroute")), "train", str(project), "--out", str(out)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("standard output can't be written (No space left on device)") == 1
    assert_equal_runs(finished, out, 12)
    assert "step     12/12" in (out / "train.log").read_text()


def test_a_text_that_was_moved_is_the_same_text(wavroute, project, finished, copy, tmp_path):
    shutil.rmtree(copy / "checkpoints" / "step_12")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("small.toml", "train.txt", "valid.txt"):
        shutil.copy(project.parent / name, elsewhere / name)
    arguments = ["train", elsewhere / "small.toml", "--out", copy, "--resume", "auto"]
    assert_ok(wavroute(*arguments))
    assert_equal_runs(finished, copy, 12)
    assert f'train = "{elsewhere}/train.txt"' in (copy / "config.toml").read_text()

    with (elsewhere / "train.txt").open("a") as file:
        file.write(" the")
    assert_error(wavroute(*arguments, *sets(train__steps=14)), "sha256", "train.txt")
    # Without a checkpoint, what env.json says of the text decides.
    shutil.rmtree(copy / "checkpoints")
    assert_error(wavroute(*arguments), "sha256", "env.json")


@pytest.mark.parametrize("place", ["out", "data"])
def test_a_name_in_latin_1_is_refused_before_anything_is_written(project, tmp_path, place):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    for name in ("small.toml", "train.txt", "valid.txt"):
        shutil.copy(project.parent / name, folder + b"/" + name.encode())
    config, out = os.fsencode(project), os.fsencode(tmp_path / "run")
    if place == "out":
        out = folder + b"/run"
    else:
        config = folder + b"/small.toml"  # its text lies beside it
    command = [os.fsencode(paths.program("wavroute")), b"train", config, b"--out", out]
    result = subprocess.run(command, capture_output=True, env=os.environ)
    result.stderr = result.stderr.decode()  # the message itself is UTF-8
    assert_error(result, "UTF-8", "caf\\xe9", "--out" if place == "out" else "data.train")
    assert not os.path.exists(out)


def test_more_steps_change_no_past_rate_and_say_so(wavroute, project, finished, copy):
    values = sets(train__steps=16)
    result = wavroute("train", project, "--out", copy, "--resume", "auto", *values)
    assert_ok(result)
    assert len(warnings(result)) == 1
    assert "16 steps instead of 12: the cosine stays as planned for 12" in warnings(result)[0]
    before, after = (
        {row["step"]: row["lr"] for row in rows(run) if "lr" in row} for run in (finished, copy)
    )
    assert {step: after[step] for step in before} == before
    assert all(math.isclose(after[step], 1e-4, rel_tol=1e-9) for step in range(13, 17))
    assert status(copy) == "finished"


def test_a_resume_elsewhere_keeps_the_old_environment_and_names_the_difference(
    wavroute, project, copy
):
    before = json.loads((copy / "env.json").read_text())
    arguments = ["train", project, "--out", copy, "--resume", "auto"]
    assert warnings(wavroute(*arguments)) == []
    assert json.loads((copy / "env.json").read_text()) == before

    portable = {"WAVROUTE_ISA": "portable"}
    threads = sets(train__threads=2)
    said = warnings(paths.call("wavroute", *arguments, *threads, env=portable))
    assert len(said) == 1
    assert "threads 1 before and 2 now" in said[0] and "last bits" in said[0]
    if before["kernels"] != "portable":
        assert f"kernels {before['kernels']} before and portable now" in said[0]
    environment = json.loads((copy / "env.json").read_text())
    resumed = environment.pop("resumed")
    assert environment == before
    assert [(entry["step"], entry["kernels"]) for entry in resumed] == [(12, "portable")]
    assert warnings(paths.call("wavroute", *arguments, *threads, env=portable)) == []


def test_a_report_that_cannot_be_written_costs_a_warning(wavroute, project, copy):
    (copy / "report.html").unlink()
    (copy / "report.html").mkdir()
    result = wavroute("train", project, "--out", copy, "--resume", "auto")
    assert_ok(result)
    assert "warning: report.html is missing or old" in result.stderr


def test_a_model_that_is_not_finite_has_no_loss(wavroute, project, copy):
    checkpoint = copy / "checkpoints" / "step_12"
    model = checkpoint / "model.safetensors"
    content = bytearray(model.read_bytes())
    header = int.from_bytes(content[:8], "little")
    entry = json.loads(content[8 : 8 + header])["model.norm.weight"]
    begin = 8 + header + entry["data_offsets"][0]
    content[begin : begin + 4] = b"\x00\x00\xc0\x7f"  # a NaN
    model.write_bytes(content)
    (checkpoint / "state.json").unlink()  # a plain model folder: no checksum
    valid = project.parent / "valid.txt"
    for more in ([], ["--json"]):
        result = wavroute("eval", checkpoint, "--data", valid, *more)
        assert_error(result, "expected a finite loss, given nan", code=1)
        assert result.stdout == ""
