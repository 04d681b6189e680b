#!/usr/bin/env python3
"""Whether training on a GPU takes the course of training on the CPU: loss curves of the same run.

    python bench/curves.py WAVROUTE [--csv FILE] [--schemes LIST] [--precisions LIST] [--steps N]
                           [--other cuda|composed]

Each scheme is trained three times from the same weights on the same batches: on the CPU's kernels, on the
CPU's stock operators, and on the GPU. The first two differ by rounding alone, in the last bits of single
numbers, and training makes these grow: their distance says how far apart the same run may end. Rows give,
for the stock operators and for the GPU, the distance of its losses from the first run's: at most over the
first 20 steps, at most over all, and the mean of their difference over the last 50, which is what a
systematic error would show in. Exit code 1: the GPU is further away than --above times the stock operators.

--other composed leaves the GPU out, which serves to try the script.
"""

import argparse
import csv
import datetime
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from binaries import Binary, Unusable, names, run

COLUMNS = ("date", "commit", "machine", "scheme", "precision", "steps", "other", "first_20_most",
           "all_most", "last_50_mean", "loss")
PROVIDERS = {"cpu": ["train.device=cpu", "train.kernels=fused"],
             "composed": ["train.device=cpu", "train.kernels=composed"],
             "cuda": ["train.device=cuda", "train.kernels=fused"]}
FLOOR = {"fp32": 1e-4, "bf16": 1e-2}  # below, distances are rounding of the loss itself


def write_text(path):
    """Sentences of a small grammar, which a small model learns within 300 steps."""
    state, words = 12345, "the a old small red cat dog king sees takes likes finds house tree".split()
    lines = []
    for _ in range(20000):
        line = []
        for _ in range(7):
            state = (1103515245 * state + 12345) % 2**31
            line.append(words[(state >> 16) % len(words)])
        lines.append(" ".join(line) + ".")
    path.write_text("\n".join(lines))


def losses(binary, folder, text, scheme, precision, provider, options):
    out = folder / f"{scheme}-{precision}-{provider}"
    sets = [f"data.train={text}", f"residual.scheme={scheme}", f"train.precision={precision}",
            f"train.steps={options.steps}", "train.eval_every=0", "train.save_every=0",
            "sample.tokens=0", f"model.layers={options.layers}", "train.log_every=0",
            *PROVIDERS[provider]]
    command = [binary.path, "train", "tiny", "--out", out, "--quiet"]
    for one in sets:
        command += ["--set", one]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Unusable(f"expected {provider} to train {scheme} in {precision}, "
                       f"given {done.stderr.strip()}")
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def distances(ours, others):
    apart = [abs(a - b) for a, b in zip(ours, others, strict=True)]
    last = [a - b for a, b in zip(ours[-50:], others[-50:])]
    return {"first_20_most": max(apart[:20]), "all_most": max(apart),
            "last_50_mean": statistics.fmean(last)}


def add_row(path, row):
    print(",".join(str(row[column]) for column in COLUMNS), flush=True)
    if path is None:
        return
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def is_too_far(gpu, stock, precision, above):
    return any(abs(gpu[measure]) > max(above * abs(stock[measure]), FLOOR[precision])
               for measure in ("first_20_most", "all_most", "last_50_mean")) or math.isnan(
                   gpu["all_most"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wavroute")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--schemes", type=names, default=["prenorm", "wav"])
    parser.add_argument("--precisions", type=names, default=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--above", type=float, default=4.0)
    parser.add_argument("--other", choices=("cuda", "composed"), default="cuda")
    options = parser.parse_args()
    binary = Binary(options.wavroute)
    gpus = binary.facts["gpu_names"] or ["none"]
    too_far = []
    with tempfile.TemporaryDirectory(prefix="wavroute-curves-") as scratch:
        folder = Path(scratch)
        write_text(folder / "text.txt")
        for scheme in options.schemes:
            for precision in options.precisions:
                def train(provider):
                    return losses(binary, folder, folder / "text.txt", scheme, precision, provider,
                                  options)
                ours, found = train("cpu"), {}
                for other in dict.fromkeys(("composed", options.other)):
                    curve = train(other)
                    found[other] = distances(ours, curve)
                    now = datetime.datetime.now(datetime.timezone.utc)
                    add_row(options.csv, {
                        "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "commit": binary.commit,
                        "machine": gpus[0] if other == "cuda" else binary.facts["cpu"],
                        "scheme": scheme, "precision": precision, "steps": options.steps,
                        "other": other, "loss": f"{curve[-1]:.5f}",
                        **{name: f"{value:.3e}" for name, value in found[other].items()}})
                if is_too_far(found[options.other], found["composed"], precision, options.above):
                    too_far.append(f"{scheme} in {precision}")
    if too_far:
        print(f"further apart than last bits make them: {', '.join(too_far)}")
    return 1 if too_far else 0


if __name__ == "__main__":
    run(main)
