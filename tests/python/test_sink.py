"""python -m wavroute.sink: each row of metrics.jsonl reaches each sink once, whatever is cut, resumed or dies."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
import time

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets, write_project
from paths import REPOSITORY

PACKAGE = REPOSITORY / "python"
SINKS = ["tensorboard", "wandb", "trackio", "mlflow"]

specification = importlib.util.spec_from_file_location("sink", PACKAGE / "wavroute" / "sink.py")
sink = importlib.util.module_from_spec(specification)
specification.loader.exec_module(sink)


def step_row(step: int, loss: float | None = None, ms: float = 5.0) -> dict:
    return {"step": step, "tokens": 32 * step, "loss": loss or 3.0 - 0.1 * step, "lr": 1e-3, "grad_norm": 1.5,
            "step_ms": ms, "tokens_per_s": 1e4}  # fmt: skip


def valid_row(step: int) -> dict:
    return {"step": step, "tokens": 32 * step, "val_loss": 2.5, "bits_per_byte": 3.6}


def make_run(folder, rows, status="finished"):
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text('name = "demo"\n[model]\nlayers = 2\n[optimizer]\nbetas = [0.9, 0.95]\n')
    (folder / "summary.json").write_text(json.dumps({"status": status}))
    write_rows(folder, rows)
    return folder


def write_rows(folder, rows, end="\n"):
    """As the trainer cuts the file: a new one in its place."""
    text = "\n".join(map(json.dumps, rows)) + end
    (folder / "new").write_text(text)
    (folder / "new").replace(folder / "metrics.jsonl")


def append(folder, text):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(text)


class Recording(sink.Sink):
    """Keeps what it gets in a list that outlives it."""

    calls: list = []
    fails_at = 0

    def __init__(self, run, state, first_step):
        state.setdefault("id", len(self.calls))
        self.calls.append(("open", first_step, state["id"]))

    def log(self, step, values):
        if step == self.fails_at:
            raise RuntimeError("no connection")
        self.calls.append((step, sorted(values)[-1]))

    def close(self, status):
        self.calls.append(("close", status))


@pytest.fixture
def recorded(monkeypatch):
    """The calls of the sinks wandb, which can't take rows back, and tensorboard, which can."""
    kinds = {"wandb": False, "tensorboard": True}
    classes = {name: type(name, (Recording,), {"rewinds": rewinds, "calls": []}) for name, rewinds in kinds.items()}
    monkeypatch.setattr(sink, "SINKS", classes)
    return classes


def forwarding(run, names=("wandb",), said=None):
    return sink.Forwarding(sink.Run(run), names, (said if said is not None else []).append)


def logged(recorded, name):
    return [call for call in recorded[name].calls if isinstance(call[0], int)]


def steps_of(recorded, name):
    return [step for step, _ in logged(recorded, name)]


def test_names_follow_the_fields_conventions():
    assert sorted(sink.named_values(step_row(1))) == [
        "grad_norm", "lr", "step_ms", "tokens", "tokens_per_s", "train/loss"]  # fmt: skip
    assert sorted(sink.named_values(valid_row(1))) == ["tokens", "val/bits_per_byte", "val/loss"]
    layers = {"step": 3, "layers": {"rms": [1.0, 2.0], "entropy": {"S": 0.5}}, "done": True, "text": "x"}
    assert sink.named_values(layers) == {"layers/rms/0": 1.0, "layers/rms/1": 2.0, "layers/entropy/S": 0.5}


def test_rows_are_forwarded_as_they_come_and_a_half_written_one_waits(tmp_path, recorded):
    run = make_run(tmp_path / "run", [step_row(1)])
    following = forwarding(run)
    following.step()
    half = json.dumps(step_row(2))
    append(run, half[:20])
    following.step()
    assert steps_of(recorded, "wandb") == [1]
    append(run, half[20:] + "\n" + json.dumps(valid_row(2)) + "\nno JSON\n[1]\n" + json.dumps(step_row(3)) + "\n")
    following.step()
    following.step()
    following.close()
    assert recorded["wandb"].calls == [
        ("open", 0, 0), (1, "train/loss"), (2, "train/loss"), (2, "val/loss"), (3, "train/loss"),
        ("close", "finished")]  # fmt: skip


def test_a_second_start_forwards_only_what_is_new(tmp_path, recorded):
    run = make_run(tmp_path / "run", [step_row(1), step_row(2)])
    for _ in range(2):
        following = forwarding(run, ["wandb", "tensorboard"])
        following.step()
        following.close()
    assert steps_of(recorded, "wandb") == [1, 2]
    # A file of events is begun with the last step, whose rows may be half there: earlier ones are dropped.
    assert steps_of(recorded, "tensorboard") == [1, 2, 2]
    assert [call[1] for call in recorded["tensorboard"].calls if call[0] == "open"] == [0, 2]
    append(run, json.dumps(valid_row(2)) + "\n" + json.dumps(step_row(3)) + "\n")
    following = forwarding(run)
    following.step()
    assert logged(recorded, "wandb")[2:] == [(2, "val/loss"), (3, "train/loss")]
    assert {call[2] for call in recorded["wandb"].calls if call[0] == "open"} == {0}  # one run there too


@pytest.mark.parametrize("is_following", [True, False], ids=["while it follows", "between two starts"])
def test_a_run_that_is_cut_back_is_forwarded_once(tmp_path, recorded, is_following):
    run = make_run(tmp_path / "run", [step_row(step) for step in range(1, 7)])
    names = ["wandb", "tensorboard"]
    following = forwarding(run, names)
    following.step()
    if not is_following:
        following.close()
        following = forwarding(run, names)
    # Resumed from step 4: other times, the same losses; longer than before by the time somebody looks.
    write_rows(run, [step_row(step) for step in range(1, 5)] + [step_row(step, ms=9.0) for step in (5, 6, 7)])
    following.step()
    append(run, json.dumps(step_row(8, ms=9.0)) + "\n")
    following.step()
    assert steps_of(recorded, "wandb") == list(range(1, 9))
    opens = [call[1] for call in recorded["tensorboard"].calls if call[0] == "open"]
    assert opens == [0, 0]  # everything again, in the place of what was there
    assert steps_of(recorded, "tensorboard") == [*range(1, 7), *range(1, 9)]


def test_a_run_that_begins_again_is_another_run_there(tmp_path, recorded):
    run = make_run(tmp_path / "run", [step_row(1), step_row(2)])
    following = forwarding(run)
    following.step()
    following.close()
    (run / "metrics.jsonl").rename(run / "earlier-metrics.jsonl")
    following = forwarding(run)
    following.step()  # nothing is there yet
    (run / "metrics.jsonl").touch()
    following.step()
    append(run, json.dumps(step_row(1, ms=7.0)) + "\n")
    following.step()
    assert steps_of(recorded, "wandb") == [1, 2, 1]
    assert len({call[2] for call in recorded["wandb"].calls if call[0] == "open"}) == 2


def test_a_sink_that_fails_is_given_up_and_the_others_go_on(tmp_path, recorded):
    recorded["wandb"].fails_at = 2
    run = make_run(tmp_path / "run", [step_row(step) for step in range(1, 5)])
    said = []
    ends = iter([False, False, True])
    status = sink.follow(sink.Run(run), ["wandb", "tensorboard"], said.append, lambda: next(ends))
    assert status == 1
    assert said == ["wandb failed (no connection)"]
    assert steps_of(recorded, "wandb") == [1]
    assert steps_of(recorded, "tensorboard") == [1, 2, 3, 4]
    # It goes on where it failed.
    recorded["wandb"].fails_at = 0
    assert sink.follow(sink.Run(run), ["wandb"], said.append, lambda: True) == 0
    assert steps_of(recorded, "wandb") == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["", "[]", '{"format": 1, "sinks": {"wandb": {"place": 3}}}', "{"])
def test_a_damaged_state_begins_anew(tmp_path, recorded, damage):
    run = make_run(tmp_path / "run", [step_row(1)])
    (run / "sinks").mkdir()
    (run / "sinks" / "state.json").write_text(damage)
    forwarding(run).step()
    assert steps_of(recorded, "wandb") == [1]


def test_hyper_parameters_are_read_without_tomllib(tmp_path):
    run = make_run(tmp_path / "run", [step_row(1)])
    whole = {"name": "demo", "model.layers": 2, "optimizer.betas": [0.9, 0.95]}
    assert sink.flat_config(run / "config.toml") == whole
    assert sink._flat_lines((run / "config.toml").read_text()) == whole


# ---- as a program --------------------------------------------------------------------------------------


FAKE = """
import json, os, sys

def record(*what):
    with open(os.environ["RECORD"], "a") as file:
        file.write(json.dumps(what) + "\\n")

class Run:
    def log(self, values, step):
        if str(step) == os.environ.get("KILLED_AT"):
            os.kill(os.getpid(), 9)
        record(step, values)
    def finish(self, exit_code):
        record("finish", exit_code)

def init(**options):
    if "REFUSES" in os.environ:
        raise RuntimeError("no such account")
    print("chatter")
    record("init", options["id"], options["config"])
    return Run()
"""


@pytest.fixture
def fake(tmp_path):
    """The environment of a Python that has a module wandb, which writes what it gets to a file."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "wandb.py").write_text(FAKE)
    path = os.pathsep.join([str(paths.package()), str(tmp_path / "modules")])
    return {"WAVROUTE_PYTHON": sys.executable, "PYTHONPATH": path, "RECORD": str(tmp_path / "record.jsonl")}


def records(fake) -> list:
    with open(fake["RECORD"]) as file:
        return [json.loads(line) for line in file]


def train(project, out, env, *arguments, **values):
    values = {"train__sinks": '["wandb"]'} | values
    return paths.call("wavroute", "train", project, "--out", out, *arguments, *sets(**values), env=env)


def call_sink(*arguments, env=None):
    return subprocess.run([sys.executable, "-m", "wavroute.sink", *map(str, arguments)], text=True,
                          capture_output=True, timeout=60,
                          env=os.environ | {"PYTHONPATH": str(paths.package())} | (env or {}))  # fmt: skip


def test_a_training_forwards_every_row_and_a_resumed_one_the_rest(tmp_path, fake):
    project, out = write_project(tmp_path), tmp_path / "run"
    done = train(project, out, fake)
    assert "chatter" not in assert_ok(done)
    assert "chatter" in (out / "sinks" / "sinks.log").read_text()
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    first, *got, last = records(fake)
    assert first[0] == "init"
    assert first[2]["model.layers"] == 2
    assert first[2]["train.sinks"] == ["wandb"]
    assert [(step, values) for step, values in got] == [(row["step"], sink.named_values(row)) for row in rows]
    assert last == ["finish", 0]

    assert_ok(train(project, out, fake, "--resume", "auto", train__steps=14))
    later = records(fake)[len(rows) + 2 :]
    assert later[0][:2] == first[:2]
    assert [step for step, _ in later[1:-1]] == [13, 14, 14]
    # Sinks are no result's business: a run may go on without.
    assert_ok(train(project, out, fake, "--resume", "auto", train__steps=16, train__sinks="[]"))
    assert len(records(fake)) == len(rows) + 2 + len(later)


@pytest.mark.parametrize(("trouble", "word"), [({"KILLED_AT": "3"}, "signal 9"),
                                               ({"REFUSES": "1"}, "no such account")])  # fmt: skip
def test_a_sink_that_dies_never_stops_training(tmp_path, fake, trouble, word):
    done = train(write_project(tmp_path), tmp_path / "run", fake | trouble)
    assert_ok(done)
    assert done.stderr.count("the run continues") == 1
    assert word in done.stderr
    assert "python -m wavroute.sink" in done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "finished"


def test_a_missing_package_or_python_is_said_before_the_first_step(tmp_path, fake):
    project, out = write_project(tmp_path), tmp_path / "run"
    (tmp_path / "empty").mkdir()
    bare = tmp_path / "bare"  # without site-packages, where the extras may be
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    cases = [({"WAVROUTE_PYTHON": str(tmp_path / "none")}, ["wandb"], ["WAVROUTE_PYTHON"]),
             ({"WAVROUTE_PYTHON": str(bare)}, ["wandb"], ["package wavroute"]),
             ({"PYTHONPATH": str(paths.package())}, ["mlflow"], ["mlflow-skinny", "pip install mlflow-skinny"])]  # fmt: skip
    if importlib.util.find_spec("mlflow") is not None:
        cases.pop()
    for env, names, words in cases:
        done = train(project, out, fake | env, train__sinks=json.dumps(names))
        assert_error(done, *words)
        assert not out.exists()


def test_a_killed_training_leaves_no_row_behind(tmp_path, fake):
    project, out = write_project(tmp_path), tmp_path / "run"
    command = [str(paths.program("wavroute")), "train", str(project), "--out", str(out), "-q",
               *sets(train__steps=100000, train__eval_every=0, train__save_every=0, train__sinks='["wandb"]')]
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"} | fake) as process:
        deadline = time.monotonic() + 60
        while not os.path.exists(fake["RECORD"]) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    rows = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    whole = sum(line.endswith("\n") for line in rows)
    while records(fake)[-1][0] != "finish" and time.monotonic() < deadline:
        time.sleep(0.05)
    steps = [record[0] for record in records(fake)[1:-1]]
    assert steps == list(range(1, whole + 1))


def test_the_program_says_what_is_wrong(tmp_path):
    done = call_sink(tmp_path, "--to", "tensorbord")
    assert done.returncode == 2
    assert "did you mean 'tensorboard'?" in done.stderr
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "wandb.py").write_text(FAKE)
    env = {"PYTHONPATH": f"{paths.package()}{os.pathsep}{tmp_path / 'modules'}"}
    done = call_sink(tmp_path, "--to", "wandb", env=env)
    assert done.returncode == 2
    assert "config.toml" in done.stderr
    assert "Traceback" not in done.stderr


# ---- the real ones, where they are installed ------------------------------------------------------------


def read_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("train/loss")]


def read_mlflow(folder):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(folder / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("wavroute").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.data.params["model.layers"] == "2"
    assert run.info.status == "FINISHED"
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "train/loss")]


def read_trackio(folder):
    import sqlite3

    with sqlite3.connect(folder / "trackio" / "wavroute.db") as database:
        rows = database.execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
    values = [(step, json.loads(metrics)) for step, metrics in rows]
    return [(step, metrics["train/loss"]) for step, metrics in values if "train/loss" in metrics]


def records_of_wandb(data: bytes):
    """Its file is a LevelDB log: after seven bytes, records in blocks of 32 KiB, cut in parts (type 1: whole;
    2, 3 and 4: first, middle and last) of checksum, length and type."""
    from wandb.proto import wandb_internal_pb2

    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole = (whole if kind in (3, 4) else b"") + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record


def read_wandb(folder):
    files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    values = []
    for record in (record for file in files for record in records_of_wandb(file.read_bytes())):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            if "train/loss" in row:
                values.append((row["_step"], row["train/loss"]))
    return values


@pytest.mark.parametrize("name", SINKS)
def test_a_real_sink_has_every_step_once(tmp_path, monkeypatch, name):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # to read it here
    pytest.importorskip(name, reason=f"{sink.PACKAGES[name]} is not installed")
    run = make_run(tmp_path / "run", [step_row(step) for step in (1, 2, 3)] + [valid_row(3)])
    for rows in ([], [step_row(4), step_row(5)]):
        append(run, "".join(json.dumps(row) + "\n" for row in rows))
        done = call_sink(run, "--to", name, env={"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
    read = {"tensorboard": read_tensorboard, "wandb": read_wandb, "trackio": read_trackio, "mlflow": read_mlflow}
    got = read[name](run / "sinks")
    assert [step for step, _ in got] == [1, 2, 3, 4, 5]
    assert [value for _, value in got] == pytest.approx([3.0 - 0.1 * step for step in range(1, 6)])
