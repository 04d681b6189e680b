#!/usr/bin/env python3
"""Whether a build of wavroute trains as fast as an earlier one.

    ./dev pace OLD [NEW]

Both builds live as workers of `wavroute bench step` (src/bench/step_bench.h) and are stepped in turn,
one at a time, in the order old new, new old, old new ... A round is --steps steps of each, its ratio
the old one's time over the new one's: above 1 the new one is faster. Reported is the median of the
rounds' ratios with its 95 % interval. Exit code 1: an interval's lower end is not above --above.

The interval is that of order statistics, which supposes nothing of how the ratios are distributed:
of n independent values as many lie below their median as heads fall in n tosses of a coin. "idle" is
how much of a core the one took while the other was stepped, "others" what other programs took: where
that is not near zero, the interval is wide and the machine was too busy to tell.
"""

import argparse
import csv
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from binaries import Binary, Unusable, names, run

CONFIDENCE = 0.95
FEWEST_ROUNDS = 6  # for which the smallest and the largest value are a 95 % interval
# After its answer a worker's threads may spin for some milliseconds more, as OpenMP has them do.
SETTLE_SECONDS = 0.01
COLUMNS = ("date", "commit", "old_commit", "machine", "cores", "threads", "scheme", "precision",
           "layers", "width", "batch", "context", "rounds", "steps", "ms_p50", "old_ms_p50", "ratio",
           "ratio_low", "ratio_high", "idle_percent", "others_percent", "command")
SHAPE = ("layers", "width", "batch", "context")


def median_interval(values, confidence=CONFIDENCE):
    """(low, high) of the median: the k-th smallest and the k-th largest value, with the largest k
    for which they enclose the median with at least that probability."""
    count = len(values)
    outside = 0.0  # the probability that fewer than k values lie below the median
    k = 0
    while 2 * (outside + math.comb(count, k) / 2**count) <= 1 - confidence:
        outside += math.comb(count, k) / 2**count
        k += 1
    if k == 0:
        raise Unusable(f"expected at least {FEWEST_ROUNDS} rounds, given {count}")
    ordered = sorted(values)
    return ordered[k - 1], ordered[count - k]


def is_old_first(round_number):
    """old new, new old, old new ...: what drifts over two rounds hits both alike."""
    return round_number % 2 == 0


def machine_cpu_seconds():
    """Of all programs, and what a host took away from this machine (steal)."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Worker:
    """A model of one build, stepped by its parent."""

    def __init__(self, binary, config, vocabulary, sets):
        words = [str(binary.path), "bench", "worker", config, "--vocab", str(vocabulary)]
        for each in sets:
            words += ["--set", each]
        self.name = str(binary.path)
        self.child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True)
        self.shape = self.answer()

    def answer(self):
        line = self.child.stdout.readline()
        try:
            found = json.loads(line)
        except ValueError:
            found = {"error": f"it ended with exit code {self.child.wait()}" if not line else line}
        if "error" in found:
            raise Unusable(f"expected an answer of {self.name}, given: {found['error']}")
        return found

    def step(self):
        """{"ms", "loss"}"""
        try:
            self.child.stdin.write("step\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: its last words say why
        return self.answer()

    def cpu_seconds(self):
        """Of all of its threads."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        try:
            self.child.stdin.close()  # the end of its input ends it
        except BrokenPipeError:
            pass
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


class Pair:
    """The old and the new worker, and what they took while it was their turn."""

    def __init__(self):
        self.old_ms, self.new_ms = [], []  # of each round: milliseconds per step
        self.idle_seconds = self.others_seconds = self.wall_seconds = 0.0
        self.losses_agree = True

    @property
    def ratios(self):
        return [old / new for old, new in zip(self.old_ms, self.new_ms)]

    @property
    def idle_percent(self):
        """Of one core: what the one took while the other was stepped."""
        return 100 * self.idle_seconds / self.wall_seconds if self.wall_seconds else 0.0

    @property
    def others_percent(self):
        """Of one core: what other programs took meanwhile."""
        return 100 * self.others_seconds / self.wall_seconds if self.wall_seconds else 0.0

    def _turn(self, active, idle, steps):
        def clocks():
            return (time.monotonic(), machine_cpu_seconds(), active.cpu_seconds(),
                    idle.cpu_seconds())

        time.sleep(SETTLE_SECONDS)
        before = clocks()
        answers = [active.step() for _ in range(steps)]
        wall, machine, own, other = (b - a for a, b in zip(before, clocks()))
        self.wall_seconds += wall
        self.idle_seconds += other
        self.others_seconds += max(0.0, machine - own - other)
        return sum(answer["ms"] for answer in answers) / steps, answers[-1]["loss"]

    def round(self, old, new, steps):
        if is_old_first(len(self.old_ms)):
            old_ms, old_loss = self._turn(old, new, steps)
            new_ms, new_loss = self._turn(new, old, steps)
        else:
            new_ms, new_loss = self._turn(new, old, steps)
            old_ms, old_loss = self._turn(old, new, steps)
        self.old_ms.append(old_ms)
        self.new_ms.append(new_ms)
        self.losses_agree = self.losses_agree and old_loss == new_loss


def measure(old, new, options, sets):
    """All rounds of one cell, spread over --starts pairs of processes: where a process happens to
    lie in memory costs or saves it as much as what is looked for here. (Pair, shape)"""
    pair = Pair()
    for start in range(options.starts):
        workers = []
        try:
            for binary in (old, new):
                workers.append(Worker(binary, options.config, options.vocab, sets))
            shape, other = ({key: worker.shape[key] for key in SHAPE + ("parameters",)}
                            for worker in workers)
            if shape != other:
                raise Unusable(f"expected two models of one shape, given {shape} and {other}")
            for _ in range(options.warmup):
                for worker in workers:
                    worker.step()
            until = options.rounds * (start + 1) // options.starts
            while len(pair.old_ms) < until:
                pair.round(*workers, options.steps)
        finally:
            for worker in workers:
                worker.close()
        print(f"  {until} of {options.rounds} rounds", file=sys.stderr, flush=True)
    return pair, shape


def append_row(path, row):
    """Adds a row to a csv file whose header is COLUMNS, or begins it."""
    path = Path(path)
    first = path.read_text().partition("\n")[0] if path.exists() else ""
    if first and first != ",".join(COLUMNS):
        raise Unusable(f"expected the header {','.join(COLUMNS)} in {path}, given {first}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not first:
            writer.writeheader()
        writer.writerow(row)


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, given {text}")
    return int(text)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev pace", allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description=__doc__.split("\n\n", 2)[2])
    parser.add_argument("old", help="a wavroute that was built earlier, as a file of its own")
    parser.add_argument("new", help="the one to hold against it")
    parser.add_argument("--config", default="bench", help="a preset or a TOML file (%(default)s)")
    parser.add_argument("--set", action="append", dest="sets", metavar="KEY=VALUE",
                        help="over the configuration (model.layers=12)")
    parser.add_argument("--schemes", type=names, default=["prenorm", "wav"])
    parser.add_argument("--precision", type=names, default=["bf16", "fp32"])
    parser.add_argument("--vocab", type=positive, default=256)
    for name, default, what in (("rounds", 40, "of both"), ("steps", 2, "of each in a round"),
                                ("starts", 4, "pairs of processes that share the rounds"),
                                ("warmup", 2, "steps of each process that don't count")):
        parser.add_argument(f"--{name}", type=positive, default=default,
                            help=f"{what} (%(default)s)")
    parser.add_argument("--above", type=float, default=0.98,
                        help="what the lower end must be above (%(default)s)")
    parser.add_argument("--csv", metavar="FILE", help="append a row for each line")
    options = parser.parse_args(arguments)
    options.sets = options.sets if options.sets is not None else ["model.layers=12"]
    if options.rounds < FEWEST_ROUNDS:
        parser.error(f"expected at least {FEWEST_ROUNDS} rounds, given {options.rounds}")
    if options.starts > options.rounds:
        parser.error(f"expected at most a start for each round, given {options.starts}")
    return options


def command_of(options):
    """How the row is measured again, but for where the two builds are."""
    words = ["./dev pace OLD NEW", f"--config {options.config}"]
    words += [f"--set {each}" for each in options.sets]
    words += [f"--{name} {getattr(options, name)}"
              for name in ("vocab", "rounds", "steps", "starts", "warmup")]
    return " ".join(words)


def main(arguments=None):
    options = parse(arguments)
    old, new = Binary(options.old), Binary(options.new)
    print(f"old {old.commit}, new {new.commit}, {new.facts['cpu']}, {new.facts['cores']} cores: "
          f"median old/new of {options.rounds} rounds, its 95 % interval (order statistics)")
    slower = False
    for scheme in options.schemes:
        for precision in options.precision:
            pair, shape = measure(old, new, options, [*options.sets, f"residual.scheme={scheme}",
                                                      f"train.precision={precision}"])
            ratio = statistics.median(pair.ratios)
            low, high = median_interval(pair.ratios)
            ms, old_ms = statistics.median(pair.new_ms), statistics.median(pair.old_ms)
            is_slower = not low > options.above
            slower = slower or is_slower
            words = f"not above {options.above}" if is_slower else f"above {options.above}"
            if not pair.losses_agree:
                words += ", the losses differ"
            print(f"{scheme:<18} {precision}  old {old_ms:8.1f} ms  new {ms:8.1f} ms  old/new "
                  f"{ratio:.3f} [{low:.3f}, {high:.3f}]  idle {pair.idle_percent:.0f} %, "
                  f"others {pair.others_percent:.0f} %: {words}",
                  flush=True)
            if options.csv:
                now = datetime.datetime.now(datetime.timezone.utc)
                append_row(options.csv, {
                    "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "commit": new.commit,
                    "old_commit": old.commit, "machine": new.facts["cpu"],
                    "cores": new.facts["cores"], "threads": new.facts["threads"],
                    "scheme": scheme, "precision": precision,
                    **{key: shape[key] for key in SHAPE}, "rounds": options.rounds,
                    "steps": options.steps, "ms_p50": f"{ms:.3f}", "old_ms_p50": f"{old_ms:.3f}",
                    "ratio": f"{ratio:.4f}", "ratio_low": f"{low:.4f}",
                    "ratio_high": f"{high:.4f}", "idle_percent": f"{pair.idle_percent:.1f}",
                    "others_percent": f"{pair.others_percent:.1f}",
                    "command": command_of(options)})
    return 1 if slower else 0


if __name__ == "__main__":
    run(main)
