#!/usr/bin/env python3
"""Training steps of wavroute.nn.Decoder beside the composed baseline (baseline.py), in PyTorch.

    PYTHONPATH=build/python python bench/python_step.py --layers 48 --how whole \\
        --models prenorm,wav,composed:wav --csv bench/results/python_steps.csv

Every model is in this process and takes its steps in turn (A B C A B C): forward, backward, fused
AdamW. A ratio is the median over the rounds of two times of the same round. --how: eager;
sublayers, attention and MLP compiled, once for all layers; whole, the model compiled.
"""

import argparse
import csv
import datetime
import os
import subprocess
import time
from pathlib import Path
from statistics import median, quantiles

import torch
from wavroute.nn import Decoder

import baseline

COLUMNS = ("date", "commit", "machine", "cores", "threads", "torch", "model", "how", "precision",
           "layers", "width", "batch", "context", "rounds", "ms_p20", "ms_p50", "ms_p80",
           "first_ms", "ratio_to_first_model")


def ours(o, scheme):
    config = {"hidden_size": o.width, "num_hidden_layers": o.layers, "vocab_size": 256,
              "num_attention_heads": o.heads, "intermediate_size": 4 * o.width,
              "residual": {"scheme": scheme}}
    model = Decoder(config, seed=1)
    if o.how == "sublayers":
        for module in model.modules():
            if type(module).__name__ in ("Attention", "Mlp"):
                module.compile()
    return model


def composed(o, scheme):
    options = argparse.Namespace(
        scheme=scheme, layers=o.layers, width=o.width, heads=o.heads, kv_heads=o.heads, vocab=256,
        hidden=4 * o.width, context=o.context, blocks=baseline.default_blocks(o.layers), eps=1e-6,
        beta=-4.0, partial_details=True, matching_epsilon=1e-12)
    model = baseline.Decoder(options)
    if o.how == "sublayers":
        for sublayer in model.sublayers:
            sublayer.compile()
    return model


class Stepper:
    def __init__(self, o, name):
        torch.manual_seed(1)
        kind, _, scheme = name.rpartition(":")
        self.o, self.name = o, name
        self.model = composed(o, scheme) if kind == "composed" else ours(o, scheme)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.loss_of = torch.compile(self.model) if o.how == "whole" else self.model
        self.ids, self.targets = (torch.randint(256, (o.batch, o.context)) for _ in range(2))
        self.times = []

    def step(self):
        """Milliseconds."""
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.o.precision == "bf16"):
            loss = self.loss_of(self.ids, self.targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return (time.perf_counter() - start) * 1e3


def machine():
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line]
    return names[0] if names else "unknown"


def commit():
    done = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True,
                          text=True, cwd=Path(__file__).parent)
    return done.stdout.strip()


def rows(o, steppers, first):
    for stepper in steppers:
        low, high = quantiles(stepper.times, n=5)[0], quantiles(stepper.times, n=5)[3]
        ratio = median(a / b for a, b in zip(stepper.times, steppers[0].times))
        yield dict(zip(COLUMNS, (
            datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), commit(),
            machine(), os.cpu_count(), torch.get_num_threads(), torch.__version__, stepper.name,
            o.how, o.precision, o.layers, o.width, o.batch, o.context, o.rounds, round(low, 1),
            round(median(stepper.times), 1), round(high, 1), round(first[stepper.name]),
            round(ratio, 4))))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="prenorm,wav", help="schemes, or composed:SCHEME")
    parser.add_argument("--how", choices=("eager", "sublayers", "whole"), default="eager")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    for name, default in (("layers", 48), ("width", 256), ("heads", 4), ("batch", 4),
                          ("context", 256), ("rounds", 7), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--csv", type=Path, help="rows are added to this file")
    o = parser.parse_args()
    if o.threads:
        torch.set_num_threads(o.threads)
    steppers = [Stepper(o, name) for name in o.models.split(",")]
    first = {stepper.name: stepper.step() for stepper in steppers}
    for stepper in steppers:
        stepper.step()
    for _ in range(o.rounds):
        for stepper in steppers:
            stepper.times.append(stepper.step())
    table = list(rows(o, steppers, first))
    for row in table:
        print(f"{row['model']:16} {row['how']:10} {row['ms_p50']:9.1f} ms "
              f"({row['ms_p20']:.1f} to {row['ms_p80']:.1f})  "
              f"ratio {row['ratio_to_first_model']:.3f}  first step {row['first_ms']} ms",
              flush=True)
    if o.csv:
        is_new = not o.csv.exists()
        with o.csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if is_new:
                writer.writeheader()
            writer.writerows(table)


if __name__ == "__main__":
    main()
