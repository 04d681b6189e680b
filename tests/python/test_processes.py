"""One training in several processes: torchrun -m wavroute train. The arithmetic is proved by
tests/train/processes_test.cpp; here are the processes, and what happens to them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import paths
import pytest
from cli_tools import STACK_TRACE, assert_ok, rows, sets, steps_of, wait_until, write_project

pytest.importorskip("torch")

LONG = sets(train__steps=100000, train__save_every=0, train__eval_every=0)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("processes"))


def environment(**values):
    kept = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return kept | {"PYTHONPATH": str(paths.package())} | values


def start(words, env, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=env, **options)


def torchrun(*words, restarts=0):
    """Starts a training in two processes of this machine."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
                f"--max-restarts={restarts}", "-m", "wavroute", "train"]
    return start([*launcher, *words], environment())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start_ranks(words_of_rank, programs=2 * [["-m", "wavroute"]], **options):
    """The same without a launcher: words_of_rank(rank) for two processes. options: of the first."""
    port = free_port()
    return [
        start([*programs[rank], "train", *words_of_rank(rank)],
              environment(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                          MASTER_PORT=port, OMP_NUM_THREADS="1"),
              **(options if rank == 0 else {}))
        for rank in range(2)
    ]


def end(process, timeout=60):
    stdout, stderr = process.communicate(timeout=timeout)
    assert not STACK_TRACE.search(stdout + stderr), stderr
    return stdout, stderr


def ours(stderr):
    """Our own errors: each has a hint."""
    lines = stderr.splitlines()
    hints = [i for i, line in enumerate(lines) if line.startswith("hint: ")]
    return [lines[i - 1] for i in hints]


def children(process):
    """The processes of a launcher, in the order of ranks."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    ranks = {}
    for pid in map(int, found.stdout.split()):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = dict(e.partition(b"=")[::2] for e in file.read().split(b"\0"))
        except OSError:
            continue
        if b"RANK" in variables:
            ranks[int(variables[b"RANK"])] = pid
    return [ranks[rank] for rank in sorted(ranks)]


def trains(run, count=5):
    return lambda: (run / "metrics.jsonl").exists() and len(rows(run)) >= count


def test_two_processes_train_as_one(project, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    batches = sets(train__batch=4, train__micro_batch=1)
    process = torchrun(project, "--out", two, "--shard-optimizer", *batches)
    assert_ok(paths.call("wavroute", "train", project, "--out", one, "-q", *batches))
    stdout, stderr = end(process)
    assert process.returncode == 0, stderr
    assert stdout.count("12/12  loss") == 1  # one process speaks
    assert "2 processes, of 2 rows each, optimizer sharded" in stdout
    assert stderr.count("report: ") == 1
    for single, shared in zip(rows(one), rows(two), strict=True):
        assert single == pytest.approx(shared, rel=1e-4)
    env = json.loads((two / "env.json").read_text())
    assert env["processes"] == 2
    # torchrun's OMP_NUM_THREADS=1 is not the user's: a configuration that leaves threads open would
    # get its share of the cores. This one says 1.
    assert steps_of(two) == [8, 12]

    # One process goes on with what two have written.
    result = paths.call("wavroute", "train", project, "--out", two, "--resume", "auto",
                        *batches, *sets(train__steps=14))
    assert_ok(result)
    assert "processes 2 before and 1 now" in result.stderr

    # And torch.distributed.checkpoint reads it.
    words = ["-m", "wavroute.dcp", one, tmp_path / "dcp"]
    back = ["-m", "wavroute.dcp", "--back", tmp_path / "dcp", two, tmp_path / "back"]
    for command in (words, back):
        done = start(command, environment())
        assert end(done) == ("", "") and done.returncode == 0
    import torch
    import torch.distributed.checkpoint as dcp
    from safetensors.torch import load_file

    folder = one / "checkpoints" / "step_12"
    stored = load_file(folder / "model.safetensors")
    moments = load_file(folder / "optimizer.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    state = {name: torch.empty_like(stored[name]),
             "optimizer": {"exp_avg": {name: torch.empty_like(stored[name])}}}
    dcp.load(state, checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    assert torch.equal(state[name], stored[name])
    assert torch.equal(state["optimizer"]["exp_avg"][name], moments["exp_avg." + name])
    returned = load_file(tmp_path / "back" / "model.safetensors")
    assert returned.keys() == stored.keys()
    assert all(torch.equal(returned[key], stored[key]) for key in stored)
    words = ["generate", tmp_path / "back", "--prompt", "the", "--tokens", 2]
    assert_ok(paths.call("wavroute", *words))


def test_the_launcher_starts_again_from_the_last_checkpoint(project, tmp_path):
    out = tmp_path / "run"
    settings = sets(train__steps=300, train__save_every=20, train__eval_every=0)
    process = torchrun(project, "--out", out, *settings, restarts=1)
    wait_until(lambda: len(children(process)) == 2, process)
    victim = children(process)[1]
    wait_until(lambda: steps_of(out), process)
    os.kill(victim, signal.SIGKILL)
    _, stderr = end(process)
    assert process.returncode == 0, stderr
    (error,) = ours(stderr)
    assert "the training ends because rank 1 (process " in error
    assert "was killed" in error
    assert "resumed from " in stderr
    steps = [row["step"] for row in rows(out) if "loss" in row]
    assert steps == list(range(1, 301))
    assert json.loads((out / "summary.json").read_text())["status"] == "finished"


def test_a_process_that_hangs_ends_the_training(project, tmp_path):
    out = tmp_path / "run"
    process = torchrun(project, "--out", out, *LONG)
    wait_until(trains(out), process)
    os.kill(children(process)[0], signal.SIGSTOP)
    begin = time.monotonic()
    _, stderr = end(process)
    assert time.monotonic() - begin < 30.0
    assert process.returncode != 0
    (error,) = ours(stderr)
    assert "the training ends because rank 0 (process " in error
    assert "it hangs" in error


def test_a_signal_to_the_launcher_saves(project, tmp_path):
    out = tmp_path / "run"
    process = torchrun(project, "--out", out, *LONG)
    wait_until(trains(out), process)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, stderr = end(process)
    assert time.monotonic() - begin < 10.0
    assert ours(stderr) == []
    (step,) = steps_of(out)
    assert rows(out)[-1]["step"] == step
    assert f"stopped at step {step}; a checkpoint is written" in stderr


def ended_with(processes, code):
    """What the processes of one job said together."""
    said = [end(process) for process in processes]
    assert [process.returncode for process in processes] == [code, code], said
    (error,) = [error for _, stderr in said for error in ours(stderr)]
    return error


def test_processes_agree_before_they_begin(project, tmp_path):
    out = tmp_path / "run"
    other_torch = ("import sys, torch; torch.__version__ = '2.12.1'\n"
                   "from wavroute.__main__ import main; sys.exit(main(sys.argv[1:]))")
    error = ended_with(
        start_ranks(lambda rank: [project, "--out", out, *sets(optimizer__lr=0.001 * (rank + 1))],
                    programs=[["-m", "wavroute"], ["-c", other_torch]]), 2)
    assert "optimizer.lr is 0.001 in rank 0 and 0.002 in rank 1" in error
    assert " and 2.12.1 in rank 1" in error
    assert not out.exists()

    other = tmp_path / "other.txt"
    other.write_text((project.parent / "train.txt").read_text()[:-1] + "o")
    texts = [project.parent / "train.txt", other]
    error = ended_with(
        start_ranks(lambda rank: [project, "--out", out, *sets(data__train=texts[rank])]), 2)
    assert "the training text is sha256 " in error
    assert not out.exists()


def test_a_full_disk_of_the_first_process_ends_all(project, tmp_path):
    out = tmp_path / "run"

    def limit():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    begin = time.monotonic()
    error = ended_with(start_ranks(lambda rank: [project, "--out", out], preexec_fn=limit), 1)
    assert "cannot write " in error
    assert time.monotonic() - begin < 30.0
    assert steps_of(out) == []


def test_a_master_that_is_not_there_is_named(project, tmp_path):
    code = "import sys, wavroute.__main__ as m; m.CONNECT = 1.0; sys.exit(m.main(sys.argv[1:]))"
    port = free_port()
    process = start(["-c", code, "train", project, "--out", tmp_path / "run"],
                    environment(RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                                MASTER_PORT=port))
    _, stderr = end(process)
    assert process.returncode == 2, stderr
    (error,) = ours(stderr)
    assert f"rank 1: expected the processes of the job to meet at 127.0.0.1:{port}" in error


def test_other_commands_want_one_process(project):
    process = start(["-m", "wavroute", "eval", project], environment(RANK="0", WORLD_SIZE="2"))
    _, stderr = end(process)
    assert process.returncode == 2
    assert "expected the command train under torchrun, given 'eval' in 2 processes" in stderr


# What a launcher does: OMP_NUM_THREADS is set in its own environment, for the processes it starts.
LAUNCHER = """
import os, subprocess, sys
if sys.argv[1] == "sets": os.environ["OMP_NUM_THREADS"] = "1"
code = '''
import os, wavroute._launch as launch
launch.share_cores(launch.read_launch())
print(os.environ.get("OMP_NUM_THREADS"), *sorted(os.sched_getaffinity(0)))
'''
for rank in range(2):
    own = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                        "LOCAL_WORLD_SIZE": sys.argv[2], "TORCHELASTIC_RUN_ID": "test"}
    subprocess.run([sys.executable, "-c", code], env=own, check=True)
"""


def test_processes_of_a_machine_share_its_cores(project):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("this machine has one core to use")

    def launched(what, local, **values):
        process = start(["-c", LAUNCHER, what, local], environment(**values))
        stdout, stderr = end(process)
        assert process.returncode == 0, stderr
        return [line.split() for line in stdout.splitlines()]

    first, second = launched("sets", 2)
    assert first[0] == second[0] == "None"  # torchrun's own is not the user's
    assert len(first) == len(second) == 1 + len(cores) // 2
    assert not set(first[1:]) & set(second[1:])
    for as_it_was in (launched("sets", 2, OMP_NUM_THREADS="1"), launched("sets", 2 * len(cores))):
        assert as_it_was == 2 * [["1", *map(str, cores)]]
