#!/usr/bin/env python3
"""Whether two builds of wavroute train every scheme to the same bits.

    ./dev same OLD [NEW]

Both train the same tiny models in the same case, and their last checkpoints and all losses on the
way are compared. A case is a scheme of the registry, or one of VARIANTS, in fp32 or bf16. Exit
code 1: a bit differs, or the new build no longer trains what the old one does.
"""

import argparse
import array
import json
import math
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from binaries import Binary, Unusable, names, run

CONFIG = """
name = "same"
[model]
layers = 6
width = 64
heads = 2
kv_heads = 1
hidden = 160
context = 48
[data]
train = "train.txt"
valid = "valid.txt"
eval_tokens = 512
[optimizer]
lr = 1e-2
[train]
steps = 6
batch = 4
micro_batch = 4
seed = 1
log_every = 1
eval_every = 3
save_every = 6
device = "cpu"
kernels = "fused"
threads = 2
[sample]
tokens = 0
"""

ODD = ("model.width=40", "model.hidden=72", "model.context=23", "train.batch=3",
       "train.micro_batch=3")
WIDE = ("model.layers=4", "model.width=256", "model.heads=4", "model.kv_heads=4",
        "model.hidden=512", "model.context=128")

# What a scheme's defaults don't reach. Micro-batches of 1 are four that are accumulated.
VARIANTS = (
    ("prenorm", "micro-batches", ("train.micro_batch=1",)),
    ("prenorm", "tied", ("model.tie_embeddings=true",)),
    ("prenorm", "odd sizes", ODD),
    ("prenorm", "wide", WIDE),
    ("rezero", "recompute=layer", ("train.recompute=layer",)),
    ("layerdrop", "rescaled, linear", ("residual.rescale=true", "residual.schedule=linear",
                                       "residual.p=0.5")),
    ("gated", "per channel", ("residual.per_channel=true", "residual.freeze=0.5")),
    ("act", "shared", ("residual.shared=true",)),
    ("full_attnres", "recompute=layer", ("train.recompute=layer",)),
    ("block_attnres", "one block", ("residual.blocks=1",)),
    ("block_attnres", "recompute=block", ("train.recompute=block",)),
    ("haares", "no partial details", ("residual.partial_details=false",)),
    ("wav", "recompute=block", ("train.recompute=block",)),
    ("wav", "recompute=layer", ("train.recompute=layer", "train.micro_batch=2")),
    ("wav", "micro-batches", ("train.micro_batch=1",)),
    ("wav", "tied, all heads", ("model.tie_embeddings=true", "model.kv_heads=2")),
    ("wav", "one detail", ('residual.details=["phase"]',)),
    ("wav", "odd sizes", ODD),
    ("wav", "wide", WIDE),
)

FILES = ("model.safetensors", "optimizer.safetensors")
TIMINGS = ("step_ms", "tokens_per_s", "peak_rss_bytes")  # of metrics.jsonl: no two runs share them
WORDS = "the cat sat on a mat and then ran home to eat".split()


# ---- comparison: each function gives "" for the same, else what differs and by how much ----------


def tensors_of(content):
    """{name: (dtype, shape, bytes)} of a safetensors file, in the order of its header."""
    end = 8 + int.from_bytes(content[:8], "little")
    found = {}
    for name, entry in json.loads(content[8:end]).items():
        if name != "__metadata__":
            begin, stop = entry["data_offsets"]
            found[name] = (entry["dtype"], entry["shape"], content[end + begin:end + stop])
    return found


# The type codes of a number and of its bits, in which 0 and -0 differ and a NaN equals itself.
TYPES = {"F64": "dQ", "F32": "fI", "BF16": "fI", "I64": "qQ", "I32": "iI"}


def numbers(dtype, content):
    """(numbers, their bits)"""
    if dtype == "BF16":  # the upper half of a float
        content = b"".join(b"\0\0" + content[i:i + 2] for i in range(0, len(content), 2))
    return [array.array(code, content) for code in TYPES[dtype]]


def distance(a, b):
    """|a - b|; infinite where one of two different values is not finite."""
    return abs(a - b) if math.isfinite(a) and math.isfinite(b) else math.inf


def tensor_difference(old, new):
    """How many numbers of two contents of a safetensors file differ, and by how much at most."""
    if old == new:
        return ""
    try:
        before, after = tensors_of(old), tensors_of(new)
    except (ValueError, KeyError, TypeError):
        return "no longer a safetensors file"
    shapes = [{name: tensor[:2] for name, tensor in each.items()} for each in (before, after)]
    if shapes[0] != shapes[1]:
        changed = sorted(name for name in shapes[0].keys() | shapes[1].keys()
                         if shapes[0].get(name) != shapes[1].get(name))
        return f"other tensors: {', '.join(changed[:3])}" + ", ..." * (len(changed) > 3)
    count = total = 0
    largest, where = -1.0, ""
    for name, (dtype, _, content) in before.items():
        old_numbers, old_bits = numbers(dtype, content)
        new_numbers, new_bits = numbers(dtype, after[name][2])
        total += len(old_bits)
        changed = [i for i, (a, b) in enumerate(zip(old_bits, new_bits)) if a != b]
        count += len(changed)
        for i in changed:
            if distance(old_numbers[i], new_numbers[i]) > largest:
                largest, where = distance(old_numbers[i], new_numbers[i]), name
    if count == 0:
        return "the same numbers, another header"
    return f"{count} of {total} numbers differ, by at most {largest:.3g} ({where})"


def metrics_difference(old, new):
    """Where two contents of metrics.jsonl first differ in more than time; what is only in the new
    one doesn't count."""
    before, after = ([json.loads(line) for line in text.splitlines()] for text in (old, new))
    if len(before) != len(after):
        return f"{len(after)} lines, {len(before)} before"
    for left, right in zip(before, after):
        for key, value in left.items():
            if key in TIMINGS or right.get(key) == value or (
                    value != value and right.get(key) != right.get(key)):  # NaN is NaN
                continue
            if isinstance(value, (int, float)) and isinstance(right.get(key), (int, float)):
                return (f"{key} of step {left.get('step')} by {distance(value, right[key]):.3g}: "
                        f"{value!r}, then {right[key]!r}")
            return f"{key} of step {left.get('step')}: {value!r}, then {right.get(key)!r}"
    return ""


def last_checkpoint(folder):
    steps = sorted((folder / "checkpoints").glob("step_*"), key=lambda path: int(path.name[5:]))
    if not steps:
        raise Unusable(f"expected a checkpoint in {folder}, given none")
    return steps[-1]


def run_differences(old, new):
    """What differs between two run folders, one line for each file."""
    before, after = last_checkpoint(old), last_checkpoint(new)
    if before.name != after.name:
        return [f"the last checkpoint is {after.name}, was {before.name}"]
    found = {name: tensor_difference((before / name).read_bytes(), (after / name).read_bytes())
             for name in FILES}
    found["metrics.jsonl"] = metrics_difference((old / "metrics.jsonl").read_text(),
                                                (new / "metrics.jsonl").read_text())
    return [f"{name}: {difference}" for name, difference in found.items() if difference]


# ---- the cases -----------------------------------------------------------------------------------


def write_project(folder):
    draw = random.Random(1)
    for name, count in (("train.txt", 3000), ("valid.txt", 400)):
        (folder / name).write_text(" ".join(draw.choice(WORDS) for _ in range(count)))
    (folder / "same.toml").write_text(CONFIG)


def cases(schemes, precisions, only):
    """(label, arguments of `wavroute train`)"""
    for scheme in schemes:
        variants = [("", ())] + [(words, sets) for of, words, sets in VARIANTS if of == scheme]
        for words, sets in variants:
            for precision in precisions:
                label = f"{scheme} {precision}" + (f", {words}" if words else "")
                if only not in label:
                    continue
                given = (f"residual.scheme={scheme}", f"train.precision={precision}", *sets)
                yield label, [word for each in given for word in ("--set", each)]


def judge(old, new, project, arguments):
    """One case: ("same" | "differs" | "skipped", words)."""
    folders = [project / "old", project / "new"]

    def train(binary, folder):
        shutil.rmtree(folder, ignore_errors=True)
        return binary.call("train", project / "same.toml", "--out", folder, "-q", *arguments)

    with ThreadPoolExecutor() as side_by_side:  # half of a run is the start of one thread
        runs = list(side_by_side.map(train, (old, new), folders))
    for name, verdict, done in zip(("old", "new"), ("skipped", "differs"), runs):
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
            return verdict, [f"the {name} one fails: {said}"]
    found = run_differences(*folders)
    if found:
        return "differs", found
    losses = [json.loads(line).get("val_loss")
              for line in (folders[0] / "metrics.jsonl").read_text().splitlines()]
    return "same", [f"loss {losses[-1]:.4f}" if losses[-1] is not None else ""]


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev same", allow_abbrev=False,
                                     description=__doc__.split("\n\n")[2])
    parser.add_argument("old", help="a wavroute that was built earlier, as a file of its own")
    parser.add_argument("new", help="the one to hold against it")
    parser.add_argument("--schemes", type=names, help="default: all of both registries")
    parser.add_argument("--precision", type=names, default=["fp32", "bf16"])
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose line has TEXT")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    old, new = Binary(options.old), Binary(options.new)
    known, ours = old.schemes(), new.schemes()
    wanted = options.schemes or list(dict.fromkeys(known + ours))
    for scheme in wanted:
        if scheme not in known + ours:
            raise Unusable(f"expected the name of a scheme, given {scheme!r}")
    print(f"old {old.commit}, new {new.commit}")
    counts = {"same": 0, "differs": 0, "skipped": 0}

    def tell(label, verdict, words):
        counts[verdict] += 1
        print(f"{label:<36} {verdict:<8} {words[0]}", *words[1:], sep="\n" + " " * 46, flush=True)

    for scheme in wanted:
        if scheme not in known:
            tell(scheme, "skipped", ["the old one doesn't know it"])
        elif scheme not in ours:
            tell(scheme, "differs", ["the new one doesn't know it"])
    both = [scheme for scheme in wanted if scheme in known and scheme in ours]
    with tempfile.TemporaryDirectory(prefix="wavroute-same-") as folder:
        write_project(Path(folder))
        for label, given in cases(both, options.precision, options.only):
            tell(label, *judge(old, new, Path(folder), given))
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if counts["same"] + counts["differs"] == 0:
        raise Unusable("expected a case to compare, given none")
    return 1 if counts["differs"] else 0


if __name__ == "__main__":
    run(main)
