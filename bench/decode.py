#!/usr/bin/env python3
"""How fast a model decodes and reads a prompt, beside llama.cpp and transformers.

    bench/decode.py WAVROUTE MODEL [--llama FOLDER] [--transformers PYTHON] [--csv FILE]

MODEL is a folder that `wavroute generate` takes. It is exported for the others, and every round takes
the programs in turn: first tokens of one sequence one by one (without the time until the first), then
a prompt at once. Peers that are not given are left out: FOLDER is one in which `npm install
node-llama-cpp` ran, PYTHON one that imports torch and transformers.
"""

import argparse
import csv
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from binaries import Binary, Unusable, names, run

COLUMNS = ("date", "commit", "machine", "cores", "threads", "model", "measure", "type", "provider",
           "version", "tokens", "rounds", "tokens_per_s_p20", "tokens_per_s_p50",
           "tokens_per_s_p80", "ratio", "gb_per_s", "percent_of_read")
PRECISIONS = {"f32": "fp32", "bf16": "bf16", "q8_0": "q8_0"}  # of `generate`, by the type of `export`
DECODE_PROMPT = "Once upon a time"
WORDS = "the cat sat on a mat and then ran home to eat with some of its old friends".split()
PROMPTS = 8  # that `generate` reads one after the other in a round

# Answers a line with a line, like TRANSFORMERS: the first says what it is.
LLAMA = """
import {createRequire} from "node:module";
import {createInterface} from "node:readline";
import {readFileSync} from "node:fs";
const [folder, modelPath, text, count, threads] = process.argv.slice(2);
const require = createRequire(folder + "/package.json");
const entry = require.resolve("node-llama-cpp");
const {getLlama} = await import(entry);
const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(threads),
                              logLevel: "error"});
const model = await llama.loadModel({modelPath});
const context = await model.createContext({contextSize: 1024, threads: Number(threads)});
const sequence = context.getSequence();
const folderOfPackage = entry.slice(0, entry.lastIndexOf("/dist/"));
const version = JSON.parse(readFileSync(folderOfPackage + "/package.json")).version;
console.log(JSON.stringify({version: "node-llama-cpp " + version}));
for await (const line of createInterface({input: process.stdin})) {
  await sequence.clearHistory();
  let seen = 0, first = 0, last = 0;
  for await (const token of sequence.evaluate(model.tokenize(text),
                                              {temperature: 0, yieldEogToken: true})) {
    last = performance.now();
    if (seen++ === 0) first = last;
    if (seen >= Number(count)) break;
  }
  console.log(JSON.stringify({tokens_per_s: 1e3 * (seen - 1) / (last - first)}));
}
process.exit(0);
"""
TRANSFORMERS = """
import json, sys, time
import torch, transformers
folder, kind, ids, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
transformers.utils.logging.disable_progress_bar()
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, kind))
ids = torch.tensor([json.loads(ids)])
def read():
    start = time.perf_counter()
    with torch.inference_mode():
        model(ids, use_cache=True, logits_to_keep=1)
    return time.perf_counter() - start
for _ in range(2):
    read()
print(json.dumps({"version": f"transformers {transformers.__version__}"}), flush=True)
for _ in sys.stdin:
    seconds = min(read() for _ in range(2))
    print(json.dumps({"tokens_per_s": ids.shape[1] / seconds}), flush=True)
"""


class Peer:
    """Another program, which measures itself once for every line that it gets."""

    def __init__(self, name, threads, words):
        self.name, self.threads = name, threads
        try:
            self.child = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise Unusable(f"expected {name} to start, given {error}")
        self.version = self._answer()["version"]

    def _answer(self):
        line = self.child.stdout.readline()
        if not line:
            raise Unusable(f"expected an answer of {self.name}, given its end")
        return json.loads(line)

    def measure(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        return self._answer()["tokens_per_s"]

    def close(self):
        self.child.stdin.close()
        try:
            self.child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Bench:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, Path(scratch)
        self.binary = Binary(options.wavroute)
        self.rows = []

    def call(self, *words):
        return self.binary.call(*words, check=True).stdout

    def export(self, kind, file_format):
        path = self.scratch / f"{file_format}-{kind}"
        self.call("export", self.options.model, "--format", file_format, "--type", kind, "--out",
                  path)
        return path

    def generate(self, precision, *words):
        out = self.call("generate", self.options.model, "--precision", precision, "--threads",
                        self.options.threads, "--temperature", 0, "--ignore-eos", "--json", *words)
        return [json.loads(line) for line in out.splitlines()]

    def read_bandwidth(self):
        out = self.call("bench", "peak", "read_memory", "--threads", self.options.threads, "--json")
        return json.loads(out)["value"]

    def decode(self, precision):
        return self.generate(precision, "--prompt", DECODE_PROMPT, "-n", self.options.tokens)[0][
            "tokens_per_s"]

    def take_turns(self, measure, kind, tokens, ours, peer, bytes_per_token=None):
        """One row for us and one for the peer, if there is one."""
        mine, theirs, bandwidth = [], [], []
        for number in range(self.options.rounds):
            turns = [(mine, ours)] + ([(theirs, peer.measure)] if peer else [])
            for results, take in turns if number % 2 == 0 else turns[::-1]:
                results.append(take())
            if bytes_per_token:
                bandwidth.append(self.read_bandwidth())
        facts = self.binary.facts
        shared = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                  "commit": self.binary.commit, "machine": facts["cpu"], "cores": facts["cores"],
                  "threads": self.options.threads, "model": Path(self.options.model).name,
                  "measure": measure, "type": kind, "tokens": tokens,
                  "rounds": self.options.rounds}
        row = {"provider": "wavroute", "version": facts["wavroute"], **quantiles(mine)}
        if bytes_per_token:
            rates = [rate * bytes_per_token / 1e9 for rate in mine]
            row["gb_per_s"] = f"{statistics.median(rates):.2f}"
            row["percent_of_read"] = "{:.1f}".format(
                100 * statistics.median(rate / peak for rate, peak in zip(rates, bandwidth)))
        self.add({**shared, **row})
        if peer:
            ratio = statistics.median(a / b for a, b in zip(mine, theirs))
            self.add({**shared, "provider": peer.name, "version": peer.version,
                      "threads": peer.threads, **quantiles(theirs), "ratio": f"{ratio:.3f}"})

    def add(self, row):
        self.rows.append({column: row.get(column, "") for column in COLUMNS})
        line = (f"{row['measure']:<8} {row['type']:<5} {row['provider']:<13} "
                f"{float(row['tokens_per_s_p50']):8.1f} tokens/s")
        if "ratio" in row:
            line += f"  wavroute is {row['ratio']} times as fast"
        if "gb_per_s" in row:
            line += f"  {row['gb_per_s']} GB/s, {row['percent_of_read']} % of a plain read"
        print(line, flush=True)

    def bench_decoding(self, kind):
        o = self.options
        weights = self.export(kind, "gguf")
        peer = None
        if o.llama:
            script = self.scratch / "llama.mjs"
            script.write_text(LLAMA)
            threads = o.llama_threads or o.threads
            peer = Peer("llama.cpp", threads, ["node", script, Path(o.llama).resolve(), weights,
                                               DECODE_PROMPT, o.tokens, threads])
        try:
            self.take_turns("decode", kind, o.tokens, lambda: self.decode(PRECISIONS[kind]), peer,
                            weights.stat().st_size)
        finally:
            if peer:
                peer.close()

    def bench_prompt(self, kind):
        o, precision = self.options, PRECISIONS[kind]
        text = " ".join(WORDS[i % len(WORDS)] for i in range(o.prompt))
        file = self.scratch / "prompts.txt"
        file.write_text(f"{text}\n" * PROMPTS)
        ids = self.generate(precision, "--prompt", text, "-n", 1)[0]["prompt_ids"]

        def ours():
            done = self.generate(precision, "--prompts", file, "-n", 1)
            return PROMPTS * len(ids) / done[0]["prefill_seconds"]

        peer = None
        if o.transformers and kind != "q8_0":
            script = self.scratch / "transformers_peer.py"
            script.write_text(TRANSFORMERS)
            dtype = {"f32": "float32", "bf16": "bfloat16"}[kind]
            peer = Peer("transformers", o.threads,
                        [o.transformers, script, self.export(kind, "hf"), dtype, json.dumps(ids),
                         o.threads])
        try:
            self.take_turns("prompt", kind, len(ids), ours, peer)
        finally:
            if peer:
                peer.close()


def quantiles(values):
    ordered = sorted(values)

    def at(share):
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return {f"tokens_per_s_p{round(100 * share)}": f"{at(share):.2f}" for share in (0.2, 0.5, 0.8)}


def append_rows(path, rows):
    path = Path(path)
    header = ",".join(COLUMNS)
    first = path.read_text().partition("\n")[0] if path.exists() else ""
    if first and first != header:
        raise Unusable(f"expected the header {header} in {path}, given {first}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not first:
            writer.writeheader()
        writer.writerows(rows)


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, given {text}")
    return int(text)


def parse(arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wavroute", help="a built wavroute")
    parser.add_argument("model", help="a run or model folder with a tokenizer")
    parser.add_argument("--llama", metavar="FOLDER", help="where node-llama-cpp is installed")
    parser.add_argument("--llama-threads", type=positive, metavar="N",
                        help="of llama.cpp (default: those of wavroute)")
    parser.add_argument("--transformers", metavar="PYTHON", help="a Python that has transformers")
    parser.add_argument("--types", type=names, default=list(PRECISIONS))
    parser.add_argument("--measures", type=names, default=["decode", "prompt"])
    for name, default, what in (("tokens", 128, "that are decoded"),
                                ("prompt", 512, "words of the prompt"), ("threads", 2, ""),
                                ("rounds", 5, "of all programs in turn")):
        parser.add_argument(f"--{name}", type=positive, default=default,
                            help=f"{what} (%(default)s)")
    parser.add_argument("--csv", metavar="FILE", help="append the rows to it")
    options = parser.parse_args(arguments)
    for kind in options.types:
        if kind not in PRECISIONS:
            parser.error(f"expected types of {', '.join(PRECISIONS)}, given {kind}")
    for measure in options.measures:
        if measure not in ("decode", "prompt"):
            parser.error(f"expected decode or prompt, given {measure}")
    return options


def main(arguments=None):
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options, scratch)
        try:
            for kind in options.types:
                if "decode" in options.measures:
                    bench.bench_decoding(kind)
                if "prompt" in options.measures:
                    bench.bench_prompt(kind)
        finally:
            if options.csv and bench.rows:
                append_rows(options.csv, bench.rows)
    return 0


if __name__ == "__main__":
    run(main)
