"""A run that was stopped, killed or out of disk space ends with the same bytes as one never stopped."""

import json
import shutil
import signal
import subprocess

import pytest
from cli_tools import (
    STACK_TRACE,
    assert_equal_runs,
    assert_error,
    assert_ok,
    draw_of_test,
    finish,
    rows,
    sets,
    start,
    steps_of,
    wait_until,
    weights,
    write_project,
)

STEPS = 96  # a second of training, twelve checkpoints
KILLS = 3
TABLE = {"train__steps": STEPS, "train__save_every": 8, "train__eval_every": 12}
BFLOAT16 = {"train__precision": "bf16"}
HALVES = {"train__micro_batch": 1}
RECOMPUTED = {"train__recompute": "block"}
# Where the disk is full: while the first files, the first checkpoint, the second, the last appear.
FULL_DISKS = ["8k", "16k", "60k", "140k", "240k"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("resume"))


def lines_of(run):
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def is_saving(run):
    """Whether a checkpoint is being written, under its temporary name."""
    return any((run / "checkpoints").glob(".wavroute-tmp-*"))


def content_of(run):
    """Every file of a run but the log and the lock, with its bytes."""
    return {
        path.relative_to(run): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in ("train.log", ".lock")
    }


def assert_error_at_end(result, *words):
    """assert_error where warnings come before the error."""
    lines = result.stderr.splitlines(keepends=True)
    errors = [i for i, line in enumerate(lines) if line.startswith("wavroute: ")]
    result.stderr = "".join(lines[errors[-1] :])
    assert_error(result, *words)


def kill_in_training(arguments, run, draw):
    """Starts the run, kills it a random number of steps on, or inside a save; whether it ran."""
    begin = lines_of(run)
    target = draw.randrange(4, 30)
    saving = draw.random() < 0.5
    process = start(*arguments)
    wait_until(
        lambda: abs(lines_of(run) - begin) >= target and (not saving or is_saving(run)), process
    )
    code, said = finish(process, signal.SIGKILL)
    assert code in (0, -signal.SIGKILL), said
    return code != 0


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("wav", {}),
        ("wav", BFLOAT16 | HALVES | RECOMPUTED),
        ("layerdrop", HALVES),
        ("act", RECOMPUTED),
        ("gated", BFLOAT16),
    ],
    ids=["wav", "wav-bf16-micro-recompute", "layerdrop-micro", "act-recompute", "gated-bf16"],
)
def test_a_killed_run_ends_with_the_bytes_of_one_never_stopped(
    wavroute, project, tmp_path, scheme, options
):
    values = sets(residual__scheme=scheme, **TABLE, **options)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert_ok(wavroute("train", project, "--out", whole, "-q", *values))
    arguments = ["train", project, "--out", killed, "--resume", "auto", "-q", *values]
    draw = draw_of_test()
    kills = sum(kill_in_training(arguments, killed, draw) for _ in range(KILLS))
    assert kills > 0, "every run was over before its kill: the test shows nothing"
    assert_ok(wavroute(*arguments))
    assert_equal_runs(whole, killed, STEPS)
    assert len(rows(killed)) > STEPS
    assert steps_of(killed) == steps_of(whole)
    assert not is_saving(killed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(wavroute, project, tmp_path, number):
    values = sets(**TABLE | {"train__save_every": 1000})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert_ok(wavroute("train", project, "--out", whole, "-q", *values))
    arguments = ["train", project, "--out", stopped, *values]
    process = start(*arguments)
    assert wait_until(lambda: lines_of(stopped) >= 5, process)
    code, said = finish(process, number)
    assert code == 1, said
    assert f"wavroute train {project} --out {stopped} --resume auto" in said
    assert not STACK_TRACE.search(said)
    last = rows(stopped)[-1]["step"]
    assert last < STEPS and steps_of(stopped) == [last]
    assert_ok(wavroute(*arguments, "--resume", "auto"))
    assert_equal_runs(whole, stopped, STEPS)


def test_a_torn_metrics_line_is_cut(wavroute, project, finished, copy):
    shutil.rmtree(copy / "checkpoints" / "step_12")
    path = copy / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert_ok(wavroute("train", project, "--out", copy, "--resume", "auto"))
    assert_equal_runs(finished, copy, 12)


@pytest.mark.parametrize("name", ["model", "optimizer"])
def test_a_corrupt_newest_checkpoint_is_passed_over_and_set_aside(
    wavroute, project, finished, copy, name
):
    path = copy / "checkpoints" / "step_12" / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    result = wavroute("train", project, "--out", copy, "--resume", "auto")
    assert_ok(result)
    assert f"passed over {copy}/checkpoints/step_12: {name}.safetensors" in result.stderr
    assert f"resumed from {copy}/checkpoints/step_8" in result.stderr
    assert "resumed" not in result.stdout
    assert_equal_runs(finished, copy, 12)
    aside = copy / "checkpoints" / "damaged-step_12"
    assert (aside / f"{name}.safetensors").read_bytes() == content
    assert f"set aside {copy}/checkpoints/step_12 as damaged-step_12" in result.stderr


def test_resuming_an_earlier_step_sets_later_ones_aside(wavroute, project, finished, copy):
    result = wavroute("train", project, "--out", copy, "--resume", "8")
    assert_ok(result)
    assert_equal_runs(finished, copy, 12)
    later = copy / "checkpoints" / "later-step_12"
    name = "model.safetensors"
    assert (later / name).read_bytes() == weights(finished, 12)[0]
    assert f"set aside {copy}/checkpoints/step_12 as later-step_12" in result.stderr
    assert_ok(wavroute("eval", later, "--data", project.parent / "valid.txt"))


def test_starting_anew_where_checkpoints_lie_needs_a_word(wavroute, project, finished, copy):
    checkpoints = copy / "checkpoints"
    for step in (8, 12):
        (checkpoints / f"step_{step}" / "model.safetensors").write_bytes(b"")
    before = content_of(copy)
    result = wavroute("train", project, "--out", copy, "--resume", "auto")
    assert_error_at_end(result, "given none whole (model.safetensors has 0 bytes", "--resume new")
    assert content_of(copy) == before
    assert_ok(wavroute("train", project, "--out", copy, "--resume", "new"))
    assert_equal_runs(finished, copy, 12)
    assert {"damaged-step_8", "damaged-step_12"} <= {path.name for path in checkpoints.iterdir()}


def test_checkpoints_without_their_configuration_are_not_continued(wavroute, project, copy):
    (copy / "config.toml").unlink()
    before = content_of(copy)
    result = wavroute("train", project, "--out", copy, "--resume", "auto")
    assert_error(result, copy / "config.toml", "--resume new")
    assert content_of(copy) == before


def test_keep_is_caught_up_after_a_kill_before_old_checkpoints_went(wavroute, project, copy):
    """The kill came between the rename of step_12 and the removal of step_4."""
    shutil.copytree(copy / "checkpoints" / "step_8", copy / "checkpoints" / "step_4")
    state = copy / "checkpoints" / "step_4" / "state.json"
    content = json.loads(state.read_text()) | {"step": 4, "updates": 4, "val_loss": None}
    for key in ("format", "state_sha256"):  # as a version before the checksum wrote it
        del content[key]
    state.write_text(json.dumps(content))
    assert_ok(wavroute("train", project, "--out", copy, "--resume", "auto"))
    assert steps_of(copy) == [8, 12]


def test_a_finished_run_is_left_as_it_is(wavroute, project, finished, copy):
    assert_ok(wavroute("train", project, "--out", copy, "--resume", "auto"))
    assert_equal_runs(finished, copy, 12)
    assert (copy / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_more_steps_are_allowed_and_taken(wavroute, project, finished, copy):
    values = sets(train__steps=16, train__keep=5)
    assert_ok(wavroute("train", project, "--out", copy, "--resume", "auto", *values))
    assert steps_of(copy) == [8, 12, 16]
    assert [row["step"] for row in rows(copy) if "loss" in row] == list(range(1, 17))
    assert weights(copy, 12) == weights(finished, 12)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"optimizer__lr": 0.1}, "optimizer.lr"),
        ({"residual__scheme": "prenorm"}, "residual.scheme"),
        ({"train__seed": 2}, "train.seed"),
        ({"train__batch": 3}, "train.batch"),
        ({"train__steps": 11}, "steps"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_changed_key_is_refused(wavroute, project, copy, values, key):
    before = (copy / "config.toml").read_bytes()
    result = wavroute("train", project, "--out", copy, "--resume", "auto", *sets(**values))
    assert_error(result, key)
    assert (copy / "config.toml").read_bytes() == before


@pytest.mark.parametrize("text", [" the cat sat", " \u00e9"], ids=["longer", "other vocabulary"])
def test_a_changed_text_is_refused(wavroute, copy, tmp_path, project, text):
    for name in ("small.toml", "train.txt", "valid.txt"):
        shutil.copy(project.parent / name, tmp_path / name)
    with (tmp_path / "train.txt").open("a") as file:
        file.write(text)
    config = tmp_path / "small.toml"
    stored = copy / "config.toml"  # names the corpus by its path, which differs here
    stored.write_text(stored.read_text().replace(str(project.parent), str(tmp_path)))
    values = sets(train__steps=16)
    result = wavroute("train", config, "--out", copy, "--resume", "auto", *values)
    assert_error(result, "train.txt")


def test_a_resume_with_less_memory_warns_and_goes_on(wavroute, with_memory, project, tmp_path):
    first = with_memory(100, "train", project, "--out", tmp_path / "new")
    assert_error(first, "memory plan", "micro_batch")
    assert not (tmp_path / "new").exists()

    on_cpu = sets(train__device="cpu")
    whole = tmp_path / "whole"
    assert_ok(wavroute("train", project, "--out", whole, "-q", *on_cpu))
    half = tmp_path / "half"
    shutil.copytree(whole, half)
    shutil.rmtree(half / "checkpoints" / "step_12")
    result = with_memory(100, "train", project, "--out", half, "--resume", "auto", *on_cpu)
    assert result.returncode == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if line.startswith("wavroute: ")]
    assert len(warnings) == 1 and "memory plan" in warnings[0] and "continues" in warnings[0]
    assert_equal_runs(whole, half, 12)


@pytest.fixture
def disk(tmp_path):
    """mount(size) makes, or makes larger, a small disk in a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size, options=""):
        command = ["mount", "-t", "tmpfs", "-o", f"{options}size={size}", "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small tmpfs is not permitted here")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


@pytest.mark.parametrize("size", FULL_DISKS)
def test_a_full_disk_stops_the_run_and_loses_nothing(wavroute, project, finished, disk, size):
    out = disk(size) / "run"
    result = wavroute("train", project, "--out", out)
    assert_error(result, f"cannot write {out}", "No space left", code=1)
    assert not is_saving(out)
    for step in steps_of(out):
        folder = out / "checkpoints" / f"step_{step}"
        assert_ok(wavroute("eval", folder, "--data", project.parent / "valid.txt"))
    disk("8m", "remount,")
    assert_ok(wavroute("train", project, "--out", out, "--resume", "auto"))
    assert_equal_runs(finished, out, 12)


@pytest.mark.parametrize(
    ("every", "words", "trained"),
    [(1, "expected a finite validation loss, given nan, after step 1", [1]), (4, "at step 2", [1])],
)
def test_a_diverging_run_stops_and_calls_nothing_good(
    wavroute, project, tmp_path, every, words, trained
):
    """At this rate the first update is finite, and what is computed after it is not."""
    out = tmp_path / "run"
    values = sets(optimizer__lr=1e30, optimizer__clip=0, train__save_every=every)
    result = wavroute("train", project, "--out", out, *values)
    assert_error(result, "diverged", words, "last good checkpoint is none", code=1)
    assert [row["step"] for row in rows(out) if "loss" in row] == trained
    assert steps_of(out) == []
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "diverged" and "val_loss" not in summary
