"""A run folder is locked before it is read, written without following links, and readable while it
trains; files of other programs are left alone; what can't be read is an error, not damage."""

import errno
import os
import shutil
import signal
import subprocess

import paths
import pytest
from cli_tools import (
    STACK_TRACE,
    assert_equal_runs,
    assert_error,
    assert_ok,
    finish,
    rows,
    sets,
    start,
    steps_of,
    wait_until,
    write_project,
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("folders"))


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def name_of_the_dead(run):
    """A temporary's name of the process that trained the run, and has ended; its lock names it."""
    return f".wavroute-tmp-step_9-{(run / '.lock').read_text().split()[-1]}-0"


def test_somebodys_files_with_names_like_temporaries_stay(wavroute, project, tmp_path):
    out = tmp_path / "somebodys"
    names = [f".tmp-thesis-{dead_pid()}", f".wavroute-tmp-x-{dead_pid()}", "notes.txt"]
    for folder in (out, out / "checkpoints"):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("precious")
    assert_error(wavroute("train", project, "--out", out), "given a run, in")
    assert sorted(os.listdir(out)) == sorted([*names, "checkpoints"])  # no lock either
    assert_ok(wavroute("train", project, "--out", out, "--resume", "auto", *sets(train__steps=2)))
    for folder in (out, out / "checkpoints"):
        assert all((folder / name).read_text() == "precious" for name in names)


def test_a_refused_command_sweeps_nothing_and_leaves_no_folder(
    wavroute, project, copy, tmp_path
):
    left = [copy / name_of_the_dead(copy), copy / "checkpoints" / name_of_the_dead(copy)]
    for path in left:
        path.mkdir()
    refused = wavroute("train", project, "--out", copy, "--resume", "auto", *sets(train__seed=2))
    assert_error(refused, "train.seed")
    assert all(path.exists() for path in left)
    assert_ok(wavroute("train", project, "--out", copy, "--resume", "auto"))
    assert not any(path.exists() for path in left)

    new = tmp_path / "new"
    unknown = wavroute("train", project, "--out", new, "--set", 'sample.prompt="\u00e9"')
    assert_error(unknown)
    assert not new.exists()


@pytest.mark.parametrize("name", ["report.html", "config.toml", "train.log", "metrics.jsonl",
                                  "summary.json", "env.json"])
def test_a_link_inside_a_run_folder_is_not_written_through(
    wavroute, project, finished, copy, tmp_path, name
):
    target = tmp_path / "target"
    shutil.move(copy / name, target)
    before = target.read_bytes()
    (copy / name).symlink_to(target)
    values = sets(train__steps=13)
    # env.json is only written where something has changed.
    elsewhere = {"WAVROUTE_ISA": "portable"} if name == "env.json" else {}
    assert_ok(wavroute("train", project, "--out", copy, "--resume", "auto", *values, env=elsewhere))
    assert target.read_bytes() == before
    assert not (copy / name).is_symlink() and (copy / name).stat().st_size > 0
    if name == "metrics.jsonl":
        assert [row["step"] for row in rows(copy) if "loss" in row] == list(range(1, 14))


@pytest.mark.parametrize("name", ["checkpoints", "samples"])
def test_a_linked_folder_of_a_run_is_not_written_through(wavroute, project, finished, copy, name):
    other = shutil.copytree(finished, copy.parent / "other")
    shutil.rmtree(copy / name, ignore_errors=True)
    (other / name).mkdir(exist_ok=True)
    (copy / name).symlink_to(other / name)
    before = sorted(other.rglob("*"))
    values = sets(train__steps=16, train__keep=1)
    result = wavroute("train", project, "--out", copy, "--resume", "auto", *values)
    assert_error(result, "a link", copy / name)
    assert sorted(other.rglob("*")) == before


def test_metrics_of_somebody_else_are_not_taken_for_a_run(wavroute, project, tmp_path):
    out = tmp_path / "somebodys"
    out.mkdir()
    (out / "metrics.jsonl").write_text('{"precious": 1}\n')
    arguments = ["train", project, "--out", out, *sets(train__steps=2)]
    assert_error(wavroute(*arguments, "--resume", "auto"), out / "metrics.jsonl", "--resume new")
    assert (out / "metrics.jsonl").read_text() == '{"precious": 1}\n'
    result = wavroute(*arguments, "--resume", "new")
    assert_ok(result)
    assert "earlier-metrics.jsonl" in result.stderr
    assert (out / "earlier-metrics.jsonl").read_text() == '{"precious": 1}\n'


def test_an_old_checkpoint_that_cannot_be_removed_costs_a_warning(
    wavroute, project, finished, copy
):
    environment = {
        "LD_PRELOAD": str(paths.program("failing_calls.so")),
        "WAVROUTE_FAIL": f"unlinkat:{errno.EACCES}:removed-step_",
    }
    arguments = ["train", project, "--out", copy, "--resume", "auto", "-q"]
    values = sets(train__steps=16, train__keep=1)
    removing = wavroute(*arguments, *values, env=environment)
    assert_ok(removing)
    assert "an old checkpoint is left" in removing.stderr
    left = list((copy / "checkpoints").glob(".wavroute-tmp-removed-*"))
    assert left and steps_of(copy)[-1] == 16
    sweeping = wavroute(*arguments, *values, env=environment)
    assert_ok(sweeping)
    assert f"left {min(left)}" in sweeping.stderr
    assert all(path.exists() for path in left)


def test_a_lock_that_is_a_link_is_refused(wavroute, project, tmp_path):
    out, target = tmp_path / "run", tmp_path / "target"
    out.mkdir()
    target.write_text("precious")
    (out / ".lock").symlink_to(target)
    assert_error(wavroute("train", project, "--out", out), out / ".lock", "a link")
    assert target.read_text() == "precious"


def test_a_named_output_that_is_a_link_is_followed(wavroute, finished, tmp_path):
    (tmp_path / "page.html").symlink_to(tmp_path / "target.html")
    assert_ok(wavroute("report", finished, "-o", tmp_path / "page.html"))
    assert (tmp_path / "page.html").is_symlink()
    assert (tmp_path / "target.html").stat().st_size > 0


def test_a_hard_linked_copy_of_a_run_is_not_written_to(wavroute, project, finished, tmp_path):
    """Such as a backup by cp -al."""
    backup, run = tmp_path / "backup", tmp_path / "run"
    shutil.copytree(finished, backup)
    shutil.copytree(backup, run, copy_function=os.link)
    before = {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    del before[backup / ".lock"]
    values = sets(train__steps=16)
    assert_ok(wavroute("train", project, "--out", run, "--resume", "auto", *values))
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_pipe_in_the_place_of_a_file_is_an_error(wavroute, project, copy):
    (copy / "metrics.jsonl").unlink()
    os.mkfifo(copy / "metrics.jsonl")
    result = wavroute("train", project, "--out", copy, "--resume", "auto", timeout=30)
    assert_error(result, copy / "metrics.jsonl", "regular file")


@pytest.mark.parametrize(
    ("rule", "number"),
    [
        ("open:{}:step_12/state.json", errno.EIO),
        ("open:{}:step_12/state.json", errno.EACCES),
        ("open:{}:step_12/model.safetensors", errno.EMFILE),
        ("open:{}:step_12/model.safetensors", errno.ENOMEM),
        ("read:{}:step_12/optimizer.safetensors", errno.EIO),
        ("open:{}:/state.json", errno.EIO),
    ],
)
def test_trouble_in_reading_a_checkpoint_is_no_damage(wavroute, project, copy, rule, number):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    environment = {
        "LD_PRELOAD": str(paths.program("failing_calls.so")),
        "WAVROUTE_FAIL": rule.format(number),
    }
    arguments = ["train", project, "--out", copy, "--resume", "auto", *sets(train__steps=14)]
    result = wavroute(*arguments, env=environment)
    assert_error(result, os.strerror(number), copy / "checkpoints",
                 code=2 if number == errno.EACCES else 1)
    for path, content in before.items():
        if path.name not in (".lock", "train.log"):
            assert path.read_bytes() == content, path
    assert steps_of(copy) == [8, 12]


def test_a_file_system_without_locks_costs_a_warning(wavroute, project, tmp_path):
    environment = {
        "LD_PRELOAD": str(paths.program("failing_calls.so")),
        "WAVROUTE_FAIL": f"flock:{errno.ENOLCK}:/.lock",
    }
    out = tmp_path / "run"
    values = sets(train__steps=100000, train__save_every=100000, train__eval_every=100000)
    process = subprocess.Popen(
        [str(paths.program("wavroute")), "train", str(project), "--out", str(out), *values],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )
    assert wait_until(lambda: (out / "metrics.jsonl").exists(), process)
    second = wavroute("train", project, "--out", out, "--resume", "auto", env=environment)
    code, said = finish(process, signal.SIGTERM)
    assert_error(second, f"process {process.pid} on ", out)
    assert code == 1 and "this file system has no locks" in said
    assert not (out / ".lock-holder").exists()
    refused = wavroute("train", project, "--out", tmp_path / "new",
                       *sets(sample__prompt='"\u00e9"'), env=environment)
    assert refused.returncode == 2 and "sample.prompt" in refused.stderr
    assert not (tmp_path / "new").exists()


def test_a_run_that_began_meanwhile_is_not_continued_under_another_configuration(
    wavroute, project, tmp_path
):
    """Both find no run; the second must not take the first one's for its own."""
    out = tmp_path / "run"
    first = start("train", project, "--out", out, "--resume", "auto", "-q",
                  *sets(train__steps=2000, train__eval_every=2000))
    assert wait_until(lambda: (out / ".lock").exists(), first)
    second = wavroute("train", project, "--out", out, "--resume", "auto", *sets(train__seed=2))
    assert_error(second, "is using")
    assert wait_until(lambda: (out / "metrics.jsonl").exists(), first)
    finish(first, signal.SIGTERM)
    third = wavroute("train", project, "--out", out, "--resume", "auto",
                     *sets(train__steps=2000, train__eval_every=2000, train__seed=2))
    assert_error(third, "train.seed")


def test_a_model_is_read_from_a_run_that_trains_and_keeps_one(wavroute, project, tmp_path):
    out = tmp_path / "run"
    values = sets(train__steps=100000, train__save_every=1, train__eval_every=100000, train__keep=1,
                  data__eval_tokens=16)
    training = start("train", project, "--out", out, "-q", *values)
    try:
        assert wait_until(lambda: bool(steps_of(out)) if out.exists() else False, training)
        for _ in range(8):
            result = wavroute("generate", out, "--prompt", "the cat", "-n", 2)
            assert_ok(result)
            assert "passed over" not in result.stderr
        assert training.poll() is None
    finally:
        code, said = finish(training, signal.SIGKILL)
        assert not STACK_TRACE.search(said), said


def test_what_another_host_left_is_named_and_kept(wavroute, project, finished, copy):
    foreign = copy / "checkpoints" / ".wavroute-tmp-step_9-0123456789abcdef-1-1-0"
    foreign.mkdir()
    result = wavroute("train", project, "--out", copy, "--resume", "auto")
    assert_ok(result)
    assert f"left {foreign}" in result.stderr
    assert foreign.exists()
    assert_equal_runs(finished, copy, 12)
