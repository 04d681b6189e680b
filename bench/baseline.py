#!/usr/bin/env python3
"""The PyTorch baseline: a Llama-style decoder whose residual stream is composed of stock operators.

    python bench/baseline.py --scheme wav --layers 48 --width 256 --precision bf16 --provider compile

It is what wavroute's training step is timed against, and an independent formula for its values.
The process is a worker: it prints one JSON line when it is ready, then answers each line of its
standard input ("step", "memory", "gemm", "quit") with one JSON line. The protocol is described in
src/bench/step_bench.h, the mathematics in docs/method.md.

Shapes: B sequences, T positions, d width, S sources.
"""

import argparse
import json
import math
import os
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

DETAILS = {"prenorm": (), "block_attnres": (), "haares": ("split",), "wav": ("phase", "split")}
DETAIL_OPTIONS = ["partial_details", "beta", "matching_epsilon"]


def default_blocks(layers):
    """The largest N <= 6 that divides the 2L sublayers into blocks of a multiple of 4, else even."""
    for unit in (4, 2):
        for blocks in range(6, 0, -1):
            if 2 * layers % blocks == 0 and 2 * layers // blocks % unit == 0:
                return blocks
    raise AssertionError("2L sublayers always form one block of even length")


def rotary_tables(context, head_width, theta=10000.0):
    """cos and sin [T, head_width] of the half-split rotation."""
    frequency = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle = torch.outer(torch.arange(context, dtype=torch.float64), frequency).repeat(1, 2)
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    """x [B, heads, T, head_width]"""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return (x * cos + turned * sin).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, width, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, width // heads
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.head_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, cos, sin):  # [B, T, d]
        split = (self.heads, self.kv_heads, self.kv_heads)
        qkv = self.qkv(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        q, k, v = qkv.split(split, dim=1)  # [B, heads, T, head_width]
        mixed = F.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True,
            enable_gqa=self.kv_heads != self.heads)
        return self.out(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x, cos, sin):
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * up)


class Router(nn.Module):
    """Mixes the sources by a softmax over depth, per token."""

    def __init__(self, width, details, eps, beta=-4.0):
        super().__init__()
        self.eps = eps
        self.query = nn.Parameter(torch.zeros(width))
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.full((details,), beta)) if details else None

    def forward(self, sources, kinds):
        """sources: S tensors [B, T, d]; kinds: for each 0 (summary) or 1 + the detail's place."""
        values = torch.stack(sources)
        keys = F.rms_norm(values, values.shape[-1:], self.gain, self.eps)
        logits = torch.einsum("sbtd,d->sbt", keys, self.query).to(self.query.dtype)
        if self.bias is not None:
            table = torch.cat((self.bias.new_zeros(1), self.bias))
            logits = logits + table[kinds].view(-1, 1, 1)
        return torch.einsum("sbt,sbtd->btd", logits.softmax(dim=0).to(values.dtype), values)


def match(detail, summary, eps=1e-12):
    """The detail at the summary's rms, per token; the ratio carries no gradient."""
    def mean_square(x):
        return x.square().mean(dim=-1, keepdim=True) + eps
    return torch.sqrt(mean_square(summary) / mean_square(detail)).detach() * detail


class RoutedStream:
    """The residual stream of one forward pass: finished sources, and the block's running sums.

    Sums stay in the type that the sublayers write (bf16 under autocast), as plain PyTorch code
    would have it: faster and smaller than the fp32 sums of wavroute, and less exact.
    """

    def __init__(self, model, embedding):
        self.model, self.sublayer = model, 0
        self.sources, self.kinds = [embedding], [0]
        self.sums = []  # summary, then the details

    def _running(self):
        summary, *details = self.sums
        eps = self.model.matching_epsilon
        return [summary] + [match(d, summary, eps) for d in details]

    def read(self):
        if self.sublayer == 0:
            return self.sources[0]
        running = self._running() if self.sums and self.model.partial_details else self.sums[:1]
        kinds = self.kinds + list(range(len(running)))
        return self.model.routers[self.sublayer - 1](self.sources + running, kinds)

    def write(self, update):
        length = self.model.block_length
        place, begin = self.sublayer % length, self.sublayer - self.sublayer % length
        length = min(length, 2 * self.model.layers - begin)  # the last block may be shorter
        signs = {"phase": 1 if self.sublayer % 2 == 0 else -1,
                 "split": 1 if place < length // 2 else -1}
        terms = [update] + [signs[name] * update for name in self.model.details]
        self.sums = [s + t for s, t in zip(self.sums, terms)] if place else terms
        self.sublayer += 1
        if place == length - 1:
            self.sources = self.sources + self._running()
            self.kinds = self.kinds + list(range(len(self.sums)))
            self.sums = []

    def read_out(self):
        return self.model.routers[-1](self.sources, self.kinds)


class Decoder(nn.Module):
    def __init__(self, options):
        super().__init__()
        o = options
        self.layers, self.routed = o.layers, o.scheme != "prenorm"
        self.details, self.partial_details = DETAILS[o.scheme], o.partial_details
        self.matching_epsilon = o.matching_epsilon
        self.block_length = -(-2 * o.layers // o.blocks)
        self.embedding = nn.Embedding(o.vocab, o.width)
        self.sublayers = nn.ModuleList()
        for _ in range(o.layers):
            self.sublayers += [Attention(o.width, o.heads, o.kv_heads), SwiGLU(o.width, o.hidden)]
        self.norms = nn.ModuleList(nn.RMSNorm(o.width, o.eps) for _ in self.sublayers)
        self.final_norm = nn.RMSNorm(o.width, o.eps)
        self.head = nn.Linear(o.width, o.vocab, bias=False)
        if self.routed:  # the first sublayer has a single source and no router
            self.routers = nn.ModuleList(
                Router(o.width, len(self.details), o.eps, o.beta) for _ in self.sublayers)
        for name, table in zip(("cos", "sin"), rotary_tables(o.context, o.width // o.heads)):
            self.register_buffer(name, table, persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = math.sqrt(2 * o.layers) if name.endswith("out.weight") else 1
                nn.init.normal_(weight, std=0.02 / scale)

    def features(self, ids):
        """The stream after the last sublayer, before the final norm: [B, T, d]."""
        h = self.embedding(ids)
        if not self.routed:
            for norm, sublayer in zip(self.norms, self.sublayers):
                h = h + sublayer(norm(h), self.cos, self.sin)
            return h
        stream = RoutedStream(self, h)
        for norm, sublayer in zip(self.norms, self.sublayers):
            stream.write(sublayer(norm(stream.read()), self.cos, self.sin))
        return stream.read_out()

    def logits(self, ids):
        return self.head(self.final_norm(self.features(ids)))

    def forward(self, ids, targets):
        logits = self.logits(ids)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def flops_per_step(o):
    """Matrix products and the causal half of attention; backward counts twice forward."""
    head_width = o.width // o.heads
    attention = o.width * (o.heads + 2 * o.kv_heads) * head_width + o.width * o.width
    weights = o.layers * (attention + 3 * o.width * o.hidden) + o.width * o.vocab
    scores_and_mix = o.layers * 2 * o.context * o.width / 2  # multiply-adds per token
    return 3 * 2 * o.batch * o.context * (weights + scores_and_mix)


def best_gemm(o, repeats=5):
    """The best speed of the model's own matrix shapes, in 1e9 operations per second."""
    dtype = torch.bfloat16 if o.precision == "bf16" else torch.float32
    best = 0.0
    for inner, outer in ((o.width, 3 * o.width), (o.width, 2 * o.hidden), (o.hidden, o.width)):
        a = torch.randn(o.batch * o.context, inner, dtype=dtype, device=o.device)
        b = torch.randn(outer, inner, dtype=dtype, device=o.device)
        for _ in range(repeats):
            start = now(o)
            F.linear(a, b)
            best = max(best, 2 * a.shape[0] * inner * outer / (now(o) - start) / 1e9)
    return best


def now(o):
    if o.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory_bytes(o):
    """The process's own peak; on a GPU, of the GPU's memory that its allocator held."""
    if o.device == "cuda":
        return torch.cuda.max_memory_reserved()
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("expected a line VmHWM in /proc/self/status, given none")


def compiled(model, provider):
    """The model as torch.compile makes it, "compile" being its default mode; as it is for "eager"."""
    if provider == "eager":
        return model
    return torch.compile(model, mode=None if provider == "compile" else provider)


class Trainer:
    def __init__(self, options):
        o = self.options = options
        torch.manual_seed(o.seed)
        if o.threads:
            torch.set_num_threads(o.threads)
        self.model = Decoder(o).to(o.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=o.lr, betas=(0.9, 0.95), fused=True)
        self.loss_of = compiled(self.model, o.provider)
        self.ids, self.targets = (
            torch.randint(o.vocab, (o.batch, o.context), device=o.device) for _ in range(2))

    def step(self):
        o = self.options
        start = now(o)
        with torch.autocast(o.device, torch.bfloat16, enabled=o.precision == "bf16"):
            loss = self.loss_of(self.ids, self.targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"ms": (now(o) - start) * 1e3, "loss": loss.item()}

    def describe(self):
        o = self.options
        return {"ready": True, "provider": o.provider, "scheme": o.scheme,
                "precision": o.precision, "layers": o.layers, "width": o.width, "batch": o.batch,
                "context": o.context, "gemm": True, "flops_per_step": flops_per_step(o),
                "parameters": sum(p.numel() for p in self.model.parameters())}


def serve(trainer, lines, answer):
    """Answers each command; ends at "quit" and at the end of the input."""
    commands = {"step": trainer.step,
                "memory": lambda: {"peak_rss_bytes": peak_memory_bytes(trainer.options)},
                "gemm": lambda: {"gflops": best_gemm(trainer.options)}}
    answer(trainer.describe())
    for line in lines:
        if line.strip() == "quit":
            return
        if line.strip() not in commands:
            raise ValueError(f"expected step, memory, gemm or quit, given {line.strip()!r}")
        answer(commands[line.strip()]())


def supported():
    """For each scheme the options of [residual] that are flags here (`partial_details` is
    --partial-details), and how many sources each block offers to a router; 0: no routers."""
    def options(scheme):
        if scheme == "prenorm":
            return []
        return ["blocks"] + DETAIL_OPTIONS * bool(DETAILS[scheme])
    return {scheme: {"options": options(scheme),
                     "sources_per_block": 0 if scheme == "prenorm" else 1 + len(details)}
            for scheme, details in DETAILS.items()}


class Supports(argparse.Action):
    def __call__(self, parser, *_):
        print(json.dumps({"supports": supported()}))
        parser.exit()


def parse(arguments=None):
    def positive(text):
        value = int(text)
        if value < 1:
            raise argparse.ArgumentTypeError(f"expected a whole number from 1, given {text}")
        return value

    def natural(text):
        return 0 if text == "0" else positive(text)

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--supports", action=Supports, nargs=0,
                        help="print the schemes and their options as one JSON line, and end")
    parser.add_argument("--scheme", required=True, choices=DETAILS)
    parser.add_argument("--provider", default="eager",
                        choices=("eager", "compile", "reduce-overhead", "max-autotune"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    for name, default in (("layers", 12), ("width", 256), ("batch", 4), ("context", 256),
                          ("vocab", 256)):
        parser.add_argument(f"--{name}", type=positive, default=default)
    parser.add_argument("--heads", type=natural, default=0, help="0: 64 channels each")
    parser.add_argument("--kv-heads", type=natural, default=0, help="0: as many as heads")
    parser.add_argument("--hidden", type=natural, default=0, help="0: 4 * width")
    parser.add_argument("--blocks", type=natural, default=0, help="0: like wavroute's auto")
    parser.add_argument("--partial-details", default=True, action=argparse.BooleanOptionalAction)
    parser.add_argument("--beta", type=float, default=-4.0, help="initial bias of a detail source")
    parser.add_argument("--matching-epsilon", type=float, default=1e-12)
    parser.add_argument("--eps", type=float, default=1e-6, help="of every RMS norm")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=natural, default=0, help="0: torch's own choice")
    o = parser.parse_args(arguments)
    o.heads = o.heads or max(1, o.width // 64)
    o.kv_heads = o.kv_heads or o.heads
    o.hidden = o.hidden or 4 * o.width
    o.blocks = o.blocks or default_blocks(o.layers)
    for problem in problems(o):
        parser.error(problem)
    return o


def problems(o):
    """What does not fit together, one sentence for each fault."""
    if o.width % o.heads or o.width // o.heads % 2:
        yield f"expected heads of an even width, given width {o.width} for {o.heads} heads"
    if o.heads % o.kv_heads:
        yield f"expected heads to be a multiple of kv-heads, given {o.heads} and {o.kv_heads}"
    sublayers = 2 * o.layers
    length = -(-sublayers // o.blocks)
    if o.scheme != "prenorm" and -(-sublayers // length) != o.blocks:
        yield f"expected blocks that {sublayers} sublayers can form, given {o.blocks}"
    if DETAILS[o.scheme] and length % 2:
        yield f"expected blocks of even length for {o.scheme}, given length {length}"
    if o.device == "cuda" and not torch.cuda.is_available():
        yield "expected a GPU for --device cuda, given none that torch can use"


def main():
    options = parse()
    # Answers go to the original standard output; whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    try:
        serve(Trainer(options), sys.stdin, answer)
    except Exception as error:  # the parent shows it as this entry's failure
        answer({"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
