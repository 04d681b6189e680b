#!/usr/bin/env python3
"""The routed read and its backward as other packages compute them on a GPU, and decoding by transformers.

    python bench/gpu_peers.py [FILE] [--packages FOLDER] [--device cuda|cpu] [--only read|decode]

Rows go to FILE (bench/results/gpu_peers.csv is that of `./dev gpu`), beside those of `gpu_routes` and
`gpu_decode` for our own. Sources and gradients are bf16, the routers' parameters as each package takes
them. A package that can't be imported or fails is named with its error and left out, and so is one whose
read is not the formula's. Everything runs in a CUDA graph, as it would in a training step; where a package
can't be captured it runs as it is, which the column `graph` says. On the CPU only the plain formula runs,
which serves to try the script.
"""

import argparse
import csv
import datetime
import importlib.metadata
import statistics
import sys
import time
from pathlib import Path

COLUMNS = ("date", "device", "measure", "provider", "version", "graph", "type", "width", "sources",
           "tokens", "ms_p20", "ms_p50", "ms_p80", "tokens_per_s_p50")
EPS = 1e-6
ROUNDS, WARMUP = 41, 5
READS = [(sources, width) for width in (1024, 4096) for sources in (9, 33)]


def plain_read(torch, sources, query, gain):
    """sum_j a_j V_j, a = softmax_j(query . gain . V_j / rms(V_j)), in float."""
    values = torch.stack(sources).float()
    keys = torch.nn.functional.rms_norm(values, values.shape[-1:], gain.float(), EPS)
    weights = (keys @ query.float()).softmax(0)
    return (weights.unsqueeze(-1) * values).sum(0).to(sources[0].dtype)


def readers(torch, device):
    """name -> (package, function that makes read(sources [T, d], query [d], gain [d]) -> [T, d])"""

    def eager():
        return lambda sources, query, gain: plain_read(torch, sources, query, gain)

    def compiled():
        return torch.compile(lambda sources, query, gain: plain_read(torch, sources, query, gain))

    def fla():
        from fla.ops.attnres import fused_attnres
        return lambda sources, query, gain: fused_attnres(query, sources, gain, rms_eps=EPS)

    def fast_attnres():  # the gain is one with the query
        from attnres import attnres
        return lambda sources, query, gain: attnres(sources, query * gain, eps=EPS)

    def flash_attn_res():  # as above; a bank of rows, as its callers keep one
        from flash_attn_res import phase_1_batched_attention_triton_op as phase_1

        def read(sources, query, gain):
            bank = torch.stack(sources).unsqueeze(1)
            return phase_1(bank, (query * gain).unsqueeze(0), EPS)[0][0, 0]
        return read

    def liger():
        from liger_kernel.transformers.functional import liger_attn_res
        return lambda sources, query, gain: liger_attn_res(
            torch.stack(sources).unsqueeze(1), query, gain, EPS)[0]

    if device == "cpu":
        return {"eager": ("torch", eager)}
    return {"eager": ("torch", eager), "compile": ("torch", compiled), "fla": ("fla-core", fla),
            "fast-attnres": ("fast-attnres", fast_attnres),
            "flash-attn-res": ("flash-attn-res", flash_attn_res), "liger": ("liger-kernel", liger)}


class Table:
    def __init__(self, path, device_name):
        self.path, self.device_name = Path(path) if path else None, device_name

    def add(self, **row):
        now = datetime.datetime.now(datetime.timezone.utc)
        row = {"date": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "device": self.device_name, **row}
        line = [row.get(column, "") for column in COLUMNS]
        print(",".join(map(str, line)), flush=True)
        if self.path is None:
            return
        is_new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(COLUMNS)
            writer.writerow(line)


def quantiles(times):
    cuts = statistics.quantiles(times, n=10, method="inclusive")
    return {"ms_p20": f"{cuts[1]:.4f}", "ms_p50": f"{cuts[4]:.4f}", "ms_p80": f"{cuts[7]:.4f}"}


def timed(torch, device, work):
    """Milliseconds of each of ROUNDS calls."""
    times = []
    for number in range(-WARMUP, ROUNDS):
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            ms = begin.elapsed_time(end)
        else:
            start = time.perf_counter()
            work()
            ms = 1e3 * (time.perf_counter() - start)
        if number >= 0:
            times.append(ms)
    return times


def captured(torch, work):
    """(work in a CUDA graph, True), or (work, False) where it can't be captured."""
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay, True
    except Exception as error:
        print(f"not captured: {first_line(error)}", file=sys.stderr)
        torch.cuda.synchronize()
        return work, False


def first_line(error):
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def time_read(torch, device, make, shape, tokens):
    """(rows of the two measures, whether in a graph); raises where the read is wrong."""
    sources, width = shape
    generator = torch.Generator(device).manual_seed(1)

    def random(*sizes):
        return torch.randn(*sizes, generator=generator, device=device).to(torch.bfloat16)
    rows = tuple(random(tokens, width).requires_grad_() for _ in range(sources))
    query = (random(width) / width**0.5).detach().requires_grad_()
    gain = (1 + 0.1 * random(width)).detach().requires_grad_()
    dh = random(tokens, width)
    read = make()
    with torch.no_grad():
        some = tuple(row[:64].contiguous() for row in rows)
        error = (read(some, query, gain) - plain_read(torch, some, query, gain)).abs().max().item()
    if not error < 0.05:  # bf16 numbers of size 1
        raise ValueError(f"its read is not the formula's: a difference of {error}")
    leaves = (*rows, query, gain)

    def forward():
        with torch.no_grad():
            read(rows, query, gain)

    def both():
        for leaf in leaves:
            leaf.grad = None
        read(rows, query, gain).backward(dh)
    measures = {}
    for measure, work in (("read", forward), ("read_and_backward", both)):
        run, in_graph = captured(torch, work) if device == "cuda" else (work, False)
        measures[measure] = (timed(torch, device, run), in_graph)
    return measures


def bench_reads(torch, table, options):
    shapes = READS if options.device == "cuda" else [(3, 64)]
    for name, (package, make) in readers(torch, options.device).items():
        for shape in shapes:
            try:
                version = importlib.metadata.version(package)
                measures = time_read(torch, options.device, make, shape, options.tokens)
            except Exception as error:  # whatever a package raises: the others' rows count
                print(f"left out: {name}, {shape[0]} sources of width {shape[1]}: {first_line(error)}",
                      file=sys.stderr)
                if isinstance(error, ImportError):
                    break
                continue
            for measure, (times, in_graph) in measures.items():
                table.add(measure=measure, provider=name, version=version, graph=in_graph,
                          type="bf16", width=shape[1], sources=shape[0], tokens=options.tokens,
                          **quantiles(times))


def bench_decoding(torch, table, options):
    """Tokens of one sequence by transformers' generate, of the sizes that gpu_decode has."""
    try:
        import transformers
    except ImportError as error:
        print(f"left out: transformers: {first_line(error)}", file=sys.stderr)
        return
    transformers.utils.logging.set_verbosity_error()
    layers, widths, count = (48, (256, 512), 256) if options.device == "cuda" else (2, (64,), 8)
    for width in widths:
        config = transformers.LlamaConfig(
            vocab_size=32768, hidden_size=width, intermediate_size=4 * width,
            num_hidden_layers=layers, num_attention_heads=width // 64,
            num_key_value_heads=width // 64, max_position_embeddings=512, eos_token_id=None)
        model = transformers.LlamaForCausalLM(config).to(options.device, torch.bfloat16).eval()
        prompt = torch.arange(16, device=options.device).unsqueeze(0)

        def tokens_per_s():
            def seconds(new):
                start = time.perf_counter()
                with torch.inference_mode():
                    model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                                   min_new_tokens=new, max_new_tokens=new, pad_token_id=0)
                if options.device == "cuda":
                    torch.cuda.synchronize()
                return time.perf_counter() - start
            return count / (seconds(1 + count) - seconds(1))
        tokens_per_s()
        rate = statistics.median(tokens_per_s() for _ in range(3))
        table.add(measure="decode", provider="transformers", version=transformers.__version__,
                  graph=False, type="bf16", width=width, tokens=count,
                  tokens_per_s_p50=f"{rate:.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help="rows are added to it")
    parser.add_argument("--packages", help="a folder of packages that this Python may lack")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", choices=("read", "decode"))
    parser.add_argument("--tokens", type=int, default=8192, help="of a read")
    options = parser.parse_args()
    if options.packages:  # behind this Python's own: its torch's triton counts
        sys.path.append(options.packages)
    import torch
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_peers: expected a GPU, given none; --device cpu tries the script",
              file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    table = Table(options.file, name)
    if options.only != "decode":
        bench_reads(torch, table, options)
    if options.only != "read":
        bench_decoding(torch, table, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
