"""Bytes that the processes of a training send in a step, counted by the system, and the formula.

    python bench/wire.py [--package build/python] [--processes 2 4]

Runs in a network namespace of its own (unshare --net), whose loopback device counts nothing else. A
row is the difference of two runs, of 5 and 25 steps: what is sent once does not count. Prints csv.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FEW, MANY = 5, 25
CONFIG = """
name = "wire"
[model]
layers = 8
width = 256
heads = 4
context = 64
[data]
train = "train.txt"
valid = "train.txt"
tokenizer = "bytes"
[train]
batch = 8
eval_every = 0
save_every = 0
threads = 1
precision = "fp32"
device = "cpu"
[sample]
tokens = 0
"""


def sent() -> int:
    """Bytes that the loopback device of this namespace has carried."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    raise OSError("no loopback device")


def train(folder: Path, count: int, steps: int, words: list[str], package: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "wavroute", "train", folder / "wire.toml", "-q",
             "--out", folder / f"{count}-{steps}{''.join(words)}",
             "--set", f"train.steps={steps}", *words],
            env=os.environ | {"PYTHONPATH": package, "OMP_NUM_THREADS": "1", "RANK": str(rank),
                              "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                              "MASTER_PORT": "29500"})
        for rank in range(count)
    ]
    if any([process.wait() for process in processes]):
        raise SystemExit("a training failed")


def parameters(folder: Path) -> int:
    """Scalars of the checkpoint that a run left."""
    import json

    path = next(folder.glob("*/checkpoints/step_*/model.safetensors"))
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum((end - begin) // 4 for entry in header.values() if "data_offsets" in entry
               for begin, end in [entry["data_offsets"]])


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--package", default="build/python")
    given.add_argument("--processes", type=int, nargs="+", default=[2])
    arguments = given.parse_args()
    if "WIRE_ALONE" not in os.environ:
        alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        os.environ["WIRE_ALONE"] = "1"
        os.execvp("unshare", [*alone, sys.executable, *sys.argv])
    package = str(Path(arguments.package).resolve())
    print("processes,optimizer,parameters,bytes_formula,bytes_sent,ratio")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "train.txt").write_text("the cat sat on a mat and ran home to eat. " * 1000)
        (folder / "wire.toml").write_text(CONFIG)
        for count in arguments.processes:
            for words in ([], ["--shard-optimizer"]):
                carried = []
                for steps in (FEW, MANY):
                    before = sent()
                    train(folder, count, steps, words, package)
                    carried.append(sent() - before)
                # Of one process, in one step.
                measured = (carried[1] - carried[0]) / (MANY - FEW) / count
                formula = 2 * (count - 1) / count * 4 * parameters(folder)
                kind = "sharded" if words else "whole"
                print(f"{count},{kind},{parameters(folder)},{formula:.0f},{measured:.0f},"
                      f"{measured / formula:.4f}", flush=True)


if __name__ == "__main__":
    main()
