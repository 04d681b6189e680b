"""The decoder and its loss, written plainly in PyTorch from docs/method.md: the reference for
the product's own model. Parameters are a dict under their checkpoint names; gradients by autograd.

Shape letters: B batch, T positions, V vocabulary, d width, H heads, L layers.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

import oracle_schemes

torch.set_num_threads(1)  # tensors this small only lose by more threads, most on a busy machine

KINDS = ("self_attn", "mlp")  # the two sublayers of a layer, in this order
PRENORM = {"self_attn": "input_layernorm", "mlp": "post_attention_layernorm"}


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return gain * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def rotate(x: Tensor, theta: float) -> Tensor:
    """Rotary positions 0..T-1 on x [B,H,T,head width], the half-split form of the Llama family."""
    positions, half = x.shape[-2], x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(positions, dtype=x.dtype)[:, None] * frequency[None, :]  # [T, half]
    first, second = x[..., :half], x[..., half:]
    return torch.cat(
        [
            first * angle.cos() - second * angle.sin(),
            second * angle.cos() + first * angle.sin(),
        ],
        -1,
    )


class Matching:
    """The detached factors of R(D|S). A first pass records them; with `hold()` every later pass
    uses the recorded ones, as the finite differences of method.md §6.6 need."""

    def __init__(self) -> None:
        self._recorded: list[Tensor] = []
        self._next: int | None = None

    def hold(self) -> None:
        self._next = 0

    def ratio(self, detail: Tensor, summary: Tensor) -> Tensor:
        if self._next is not None:
            self._next += 1
            return self._recorded[self._next - 1]
        square = lambda x: (x * x).mean(-1, keepdim=True) + 1e-12
        ratio = torch.sqrt(square(summary) / square(detail)).detach()
        self._recorded.append(ratio)
        return ratio


@dataclass
class Model:
    """One forward pass: the parameters, how it runs, and what the scheme reports."""

    config: dict
    params: dict[str, Tensor]
    layers: list[int]  # the layers that run, in order: all, those kept, or a program
    training: bool
    matching: Matching
    reads: dict[str, list[str]] = field(default_factory=dict)  # router -> basis of each source
    weights: dict[str, Tensor] = field(default_factory=dict)  # router -> [B,T,sources]

    @property
    def residual(self) -> dict:
        return self.config["residual"]

    @property
    def depth(self) -> int:
        return self.config["num_hidden_layers"]

    def layer_parameter(self, layer: int, name: str) -> Tensor:
        return self.params[f"model.layers.{layer}.{name}"]

    def update(self, layer: int, kind: str, h: Tensor, prenorm: bool = True) -> Tensor:
        """u_l = f_l(RMSNorm_l(h_l)), [B,T,d]."""
        if prenorm:
            gain = self.layer_parameter(layer, f"{PRENORM[kind]}.weight")
            h = rms_norm(h, gain, self.config["rms_norm_eps"])
        return self._attention(layer, h) if kind == "self_attn" else self._mlp(layer, h)

    def _attention(self, layer: int, x: Tensor) -> Tensor:
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        batch, positions, width = x.shape
        head_width = width // heads

        def project(name: str, count: int) -> Tensor:
            y = x @ self.layer_parameter(layer, f"self_attn.{name}_proj.weight").T
            return y.view(batch, positions, count, head_width).transpose(1, 2)

        query = rotate(project("q", heads), self.config["rope_theta"])
        key = rotate(project("k", kv_heads), self.config["rope_theta"])
        value = project("v", kv_heads)
        serves = [h * kv_heads // heads for h in range(heads)]  # query head -> key-value head
        scores = query @ key[:, serves].transpose(-1, -2) / math.sqrt(head_width)
        future = torch.ones(positions, positions, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ value[:, serves]
        mixed = mixed.transpose(1, 2).reshape(batch, positions, width)
        return mixed @ self.layer_parameter(layer, "self_attn.o_proj.weight").T

    def _mlp(self, layer: int, x: Tensor) -> Tensor:
        names = ("gate", "up", "down")
        gate, up, down = (self.layer_parameter(layer, f"mlp.{n}_proj.weight") for n in names)
        return (functional.silu(x @ gate.T) * (x @ up.T)) @ down.T


@dataclass
class Output:
    logits: Tensor  # [B,T,V]
    auxiliary: Tensor  # scalar, 0 where the scheme has none
    model: Model
    halting: "oracle_schemes.Halting | None"


def forward(
    config: dict,
    params: dict[str, Tensor],
    ids: Tensor,
    *,
    training: bool = False,
    layers: list[int] | None = None,
    matching: Matching | None = None,
) -> Output:
    """`layers`: the layers that run (kept by layerdrop, or a program); None: each once."""
    depth = config["num_hidden_layers"]
    run = list(range(depth)) if layers is None else list(layers)
    model = Model(config, params, run, training, matching or Matching())
    embedding = params["model.embed_tokens.weight"][ids]
    final, auxiliary, halting = oracle_schemes.run(model, embedding)
    final = rms_norm(final, params["model.norm.weight"], config["rms_norm_eps"])
    tied = config["tie_word_embeddings"]
    head = params["model.embed_tokens.weight" if tied else "lm_head.weight"]
    return Output(final @ head.T, auxiliary, model, halting)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over all positions, nats."""
    return -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()


def gradients(config: dict, params: dict[str, Tensor], ids: Tensor, targets: Tensor, **how):
    """(Output, loss, {name: gradient}): the loss is the cross-entropy alone, the gradients are of
    cross-entropy + auxiliary; a parameter that took no part has a zero gradient."""
    leaves = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    output = forward(config, leaves, ids, **how)
    loss = cross_entropy(output.logits, targets)
    found = torch.autograd.grad(loss + output.auxiliary, list(leaves.values()), allow_unused=True)
    grads = {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found)
    }
    return output, loss.detach(), grads


def without_gradient(output: Output) -> set[str]:
    """The parameters whose gradient the formula itself makes zero in this pass."""
    model, names = output.model, list(output.model.params)
    zero: set[str] = set()

    def add(prefix: str) -> None:
        zero.update(name for name in names if name.startswith(prefix))

    last = None if output.halting is None else int(output.halting.depth.max())
    if not model.residual.get("shared"):
        for layer in range(model.depth):
            if layer not in model.layers or (last is not None and layer + 1 > last):
                add(f"model.layers.{layer}.")
    if last is not None and not model.residual["shared"]:
        add(f"model.layers.{last - 1}.halt.")  # p_N of the deepest token: its share is R
    if model.residual.get("frozen"):
        zero.update(name for name in names if "_gate." in name)
    # mhc_lite carries equal streams before its first write, and what is summed up after its last:
    # no permutation matters.
    zero |= _mixer_of(model, model.layers[0], "self_attn_hc_res")
    zero |= _mixer_of(model, model.layers[-1], "mlp_hc_res")
    for router, sources in model.reads.items():
        if len(sources) == 1:  # a weight of 1, whatever the query
            add(f"{router}_")
        if all(basis == "summary" for basis in sources):
            add(f"{router}_bias")
    return zero


def through_eps_alone(output: Output) -> set[str]:
    """The parameters whose gradient would be zero too, were the eps of the norms zero: all streams
    of mhc_lite are one where its first sublayer reads, and a norm drops the size of what it reads."""
    model = output.model
    return _mixer_of(model, model.layers[0], "self_attn_hc_pre")


def _mixer_of(model: Model, layer: int, part: str) -> set[str]:
    """Nothing of a layer that runs again, elsewhere."""
    prefix = f"model.layers.{layer}.{part}"
    once = model.layers.count(layer) == 1
    return {name for name in model.params if once and name.startswith(prefix)}


def parse_program(text: str) -> list[int]:
    """"0-2,3x2,5" -> [0, 1, 2, 3, 3, 5]."""
    layers: list[int] = []
    for item in text.split(","):
        if "x" in item:
            layer, times = item.split("x")
            layers += [int(layer)] * int(times)
        else:
            first, _, last = item.partition("-")
            layers += range(int(first), int(last or first) + 1)
    return layers
