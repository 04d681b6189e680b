"""What the tests of the command line share: a small text, a small configuration, runs, errors."""

import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import paths
import pytest

WORDS = "the cat sat on a mat and then ran home to eat".split()
TIMINGS = ("step_ms", "tokens_per_s", "peak_rss_bytes")
# Found in crash output, never in a message to a user.
STACK_TRACE = re.compile(r"frame #|Exception raised|terminate called|\.cpp:\d+|what\(\):")

CONFIG = """
name = "small"
[model]
layers = 2
width = 16
heads = 2
hidden = 32
context = 16
[residual]
scheme = "wav"
[data]
train = "train.txt"
valid = "valid.txt"
tokenizer = "chars"
eval_tokens = 64
[train]
steps = 12
batch = 2
eval_every = 6
save_every = 4
threads = 1
precision = "fp32"
[sample]
tokens = 0
"""


def write_project(folder: Path) -> Path:
    """train.txt, valid.txt and small.toml in `folder`; the configuration's path."""
    draw = random.Random(1)
    for name, count in (("train.txt", 1500), ("valid.txt", 100)):
        (folder / name).write_text(" ".join(draw.choice(WORDS) for _ in range(count)))
    path = folder / "small.toml"
    path.write_text(CONFIG)
    return path


def draw_of_test() -> random.Random:
    """Random choices that differ from run to run; pytest prints what repeats them on a failure:
    WAVROUTE_TEST_SEED=N."""
    seed = int(os.environ.get("WAVROUTE_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"random choices: WAVROUTE_TEST_SEED={seed}")
    return random.Random(seed)


def sets(**values: object) -> list[str]:
    """sets(train__steps=3) is ["--set", "train.steps=3"]."""
    pairs = [f"{key.replace('__', '.')}={value}" for key, value in values.items()]
    return [word for pair in pairs for word in ("--set", pair)]


def start(*arguments: object, **options: object) -> subprocess.Popen:
    """Starts the command on one thread, without waiting for it."""
    return subprocess.Popen(
        [str(paths.program("wavroute")), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **options,
    )


def wait_until(condition, process: subprocess.Popen, timeout: float = 60) -> bool:
    """Whether `condition` held while the process ran."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return True
        if process.poll() is not None:
            return condition()
        time.sleep(0.001)
    process.kill()
    raise AssertionError(f"nothing came of it in {timeout} s: {process.args}")


def finish(process: subprocess.Popen, number: int = 0) -> tuple[int, str]:
    """Sends signal `number` and waits; the exit code and all output."""
    if number:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout + stderr


def rows(run: Path) -> list[dict]:
    """metrics.jsonl without the timings, which differ between runs."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def steps_of(run: Path) -> list[int]:
    """The steps that have a checkpoint, in order."""
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step_*"))


def weights(run: Path, step: int) -> tuple[bytes, bytes]:
    """The bytes of the model and of the optimizer's state at a step."""
    folder = run / "checkpoints" / f"step_{step}"
    return (
        (folder / "model.safetensors").read_bytes(),
        (folder / "optimizer.safetensors").read_bytes(),
    )


def assert_equal_runs(left: Path, right: Path, step: int) -> None:
    assert weights(left, step) == weights(right, step)
    assert rows(left) == rows(right)


def assert_ok(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def assert_error(result: subprocess.CompletedProcess, *words: str, code: int = 2) -> None:
    """The form of every error: its exit code, what and where, a hint, no stack trace."""
    text = result.stderr
    assert result.returncode == code, text
    lines = text.splitlines()
    begin = [i for i, line in enumerate(lines) if line.startswith("wavroute: ")]
    assert len(begin) == 1, text
    if code == 2:  # wrong use is found before any output
        assert begin == [0], text
    assert not STACK_TRACE.search(text), text
    for word in words:
        assert str(word) in text, f"{word!r} is missing: {text}"
    assert any(line.startswith("hint: ") for line in lines[begin[0] + 1 :]), f"no hint: {text}"
