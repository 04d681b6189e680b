"""Every residual scheme of docs/method.md, one function each.

A scheme takes the model and the embedding e [B,T,d] and returns what the final norm reads [B,T,d];
act also returns its auxiliary loss and its halting.
"""

import itertools
from dataclasses import dataclass
from typing import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

IMPLIED_DETAILS = {"block_attnres": [], "haares": ["split"], "wav": ["phase", "split"]}
ROUTER = {"self_attn": "self_attention_res", "mlp": "mlp_res"}
READ_OUT = "model.output_attn_res"


@dataclass
class Halting:
    depth: Tensor  # N, [B,T] int64
    margin: Tensor  # [B,T], how near the running sum of p came to the threshold


@dataclass(frozen=True)
class Blocks:
    """M sublayers in N blocks of K = ceil(M/N); sublayers, blocks and positions count from 0."""

    sublayers: int
    count: int

    @property
    def length(self) -> int:
        return -(-self.sublayers // self.count)

    def block(self, sublayer: int) -> int:
        return sublayer // self.length

    def own_length(self, block: int) -> int:
        return min(self.length, self.sublayers - block * self.length)

    def sign(self, basis: str, sublayer: int) -> int:
        if basis == "phase":
            return 1 if sublayer % 2 == 0 else -1  # attention is the even one, counted from 0
        position = sublayer % self.length
        return 1 if position < self.own_length(self.block(sublayer)) / 2 else -1


def sublayers(model) -> Iterator[tuple[int, str, int]]:
    """(layer, kind, sublayer number from 0) of everything that runs, in order."""
    for layer in model.layers:
        yield layer, "self_attn", 2 * layer
        yield layer, "mlp", 2 * layer + 1


# --- additive ---------------------------------------------------------------------------------


def prenorm(model, embedding: Tensor) -> Tensor:
    h = embedding
    for layer, kind, _ in sublayers(model):
        h = h + model.update(layer, kind, h)
    return h


def rezero(model, embedding: Tensor) -> Tensor:
    h = embedding
    for layer, kind, _ in sublayers(model):
        scale = model.layer_parameter(layer, f"{kind}_residual_scale")
        h = h + scale * model.update(layer, kind, h, prenorm=model.residual["norm"] == "pre")
    return h


def layerscale(model, embedding: Tensor) -> Tensor:
    h = embedding
    for layer, kind, _ in sublayers(model):
        scale = model.layer_parameter(layer, f"{kind}_residual_scale")
        h = h + scale * model.update(layer, kind, h)
    return h


def block_layerscale(model, embedding: Tensor) -> Tensor:
    blocks = Blocks(2 * model.depth, model.residual["blocks"])
    h = embedding
    for layer, kind, sublayer in sublayers(model):
        scale = model.params["model.block_residual_scale"][blocks.block(sublayer)]
        h = h + scale * model.update(layer, kind, h)
    return h


def layerdrop(model, embedding: Tensor) -> Tensor:
    """The draw is the caller's: `model.layers` are the layers that were kept."""
    options = model.residual
    h = embedding
    for layer, kind, _ in sublayers(model):
        update = model.update(layer, kind, h)
        if model.training and options["rescale"]:
            p = options["p"]
            if options["schedule"] == "linear":
                p = p * (layer + 1) / model.depth  # i = 1..L
            update = update / (1 - p)
        h = h + update
    return h


def trailing_mean(h: Tensor, window: int) -> Tensor:
    """Mean of h [B,T,d] over positions t-window+1..t, those that exist."""
    means = [h[:, max(0, t - window + 1) : t + 1].mean(1) for t in range(h.shape[1])]
    return torch.stack(means, 1)


def gated(model, embedding: Tensor) -> Tensor:
    h = embedding
    for layer, kind, _ in sublayers(model):
        update = model.update(layer, kind, h)
        if not model.residual["frozen"]:
            summary = torch.cat([trailing_mean(h, k) for k in model.residual["windows"]], -1)
            part = lambda name: model.layer_parameter(layer, f"{kind}_gate.{name}")
            hidden = functional.silu(summary @ part("fc1.weight").T)
            alpha = torch.sigmoid(hidden @ part("fc2.weight").T + part("fc2.bias"))
            update = alpha * update
        h = h + update
    return h


# --- adaptive computation time ----------------------------------------------------------------


def act(model, embedding: Tensor) -> tuple[Tensor, Tensor, Halting]:
    options, depth = model.residual, model.depth
    threshold = 1 - options["epsilon"]
    state = embedding
    running = torch.ones(embedding.shape[:2], dtype=torch.bool)  # [B,T]
    total = torch.zeros(embedding.shape[:2], dtype=embedding.dtype)  # sum of p_i while i < N
    output = torch.zeros_like(embedding)
    count = torch.zeros(embedding.shape[:2], dtype=torch.int64)  # N
    margin = torch.full_like(total, torch.inf)
    for n in range(1, depth + 1):
        layer = 0 if options["shared"] else n - 1
        # Other tokens still attend to the key and value of a halted token's (unchanged) state.
        after = state + model.update(layer, "self_attn", state)
        after = after + model.update(layer, "mlp", after)
        state = torch.where(running[..., None], after, state)
        if n == depth:
            halts, p = running, torch.zeros_like(total)
        else:
            weight = model.layer_parameter(layer, "halt.weight")[0]
            p = torch.sigmoid(state @ weight + model.layer_parameter(layer, "halt.bias"))
            reached = (total + p).detach()
            halts = running & (reached >= threshold)
            distance = torch.minimum(margin, (reached - threshold).abs())
            margin = torch.where(running, distance, margin)
        goes_on = running & ~halts
        share = torch.where(halts, 1 - total, torch.where(goes_on, p, torch.zeros_like(p)))
        output = output + share[..., None] * state
        count = torch.where(halts, n, count)
        total = total + torch.where(goes_on, p, torch.zeros_like(p))
        running = goes_on
    auxiliary = options["tau"] * (count + (1 - total)).mean()
    return output, auxiliary, Halting(count, margin.detach())


# --- several layers, several streams ----------------------------------------------------------


def denseformer(model, embedding: Tensor) -> Tensor:
    dilation, period = model.residual["dilation"], model.residual["period"]
    outputs = {0: embedding}  # X by number: i is the latest output of stored layer i - 1
    y = embedding
    for layer in model.layers:
        x = y + model.update(layer, "self_attn", y)
        x = x + model.update(layer, "mlp", x)
        i = layer + 1
        outputs[i] = x
        if i % period != 0:
            y = x
            continue
        numbers = [j for j in range(i + 1) if j % dilation == i % dilation]
        weights = model.layer_parameter(layer, "depth_weights")
        assert len(weights) == len(numbers)
        y = sum(weight * outputs[j] for weight, j in zip(weights, numbers) if j in outputs)
    return y


def mhc_lite(model, embedding: Tensor) -> Tensor:
    count = model.residual["streams"]
    permutations = list(itertools.permutations(range(count)))  # lexicographic
    streams = [embedding] * count
    for layer, kind, _ in sublayers(model):
        part = lambda name: model.layer_parameter(layer, f"{kind}_hc_{name}")
        joined = torch.cat(streams, -1)  # stream 0 first
        square = (joined * joined).mean(-1, keepdim=True)
        joined = part("norm.weight") * joined / torch.sqrt(square + model.config["rms_norm_eps"])

        def logits(name: str) -> Tensor:
            return part(f"{name}_scale") * (joined @ part(f"{name}.weight").T) + part(f"{name}.bias")

        read, written = torch.sigmoid(logits("pre")), 2 * torch.sigmoid(logits("post"))
        shares = logits("res").softmax(-1)  # [B,T,n!]
        h = sum(read[..., r, None] * stream for r, stream in enumerate(streams))
        update = model.update(layer, kind, h)
        carried = [sum(shares[..., k, None] * streams[taken[r]]
                       for k, taken in enumerate(permutations)) for r in range(count)]
        streams = [carried[r] + written[..., r, None] * update for r in range(count)]
    return sum(streams)


# --- routed -----------------------------------------------------------------------------------

Source = tuple[Tensor, str]  # a value [B,T,d], and "summary" or the name of its detail basis


def route(model, router: str, sources: list[Source], details: list[str]) -> Tensor:
    """h = sum_j a_j v_j over the sources, by the router whose parameters start with `router`."""
    query = model.params[f"{router}_proj.weight"][0]
    gain = model.params[f"{router}_norm.weight"]
    logits = []
    for value, basis in sources:
        rms = torch.sqrt((value * value).mean(-1) + model.config["rms_norm_eps"])
        logit = (query * gain * value).sum(-1) / rms
        if basis != "summary":
            logit = logit + model.params[f"{router}_bias"][details.index(basis)]
        logits.append(logit)
    weights = torch.stack(logits, -1).softmax(-1)  # [B,T,sources]
    model.reads.setdefault(router, []).extend(basis for _, basis in sources)
    model.weights[router] = weights.detach()
    return sum(weights[..., j, None] * value for j, (value, _) in enumerate(sources))


def full_attnres(model, embedding: Tensor) -> Tensor:
    sources: list[Source] = [(embedding, "summary")]
    for layer, kind, sublayer in sublayers(model):
        router = f"model.layers.{layer}.{ROUTER[kind]}"
        h = embedding if sublayer == 0 else route(model, router, sources, [])
        sources.append((model.update(layer, kind, h), "summary"))
    return route(model, READ_OUT, sources, [])


def block_routed(model, embedding: Tensor) -> Tensor:
    """block_attnres, haares and wav: they differ in their detail bases alone."""
    options = model.residual
    details = options.get("details", IMPLIED_DETAILS[options["scheme"]])
    details = [basis for basis in ("phase", "split") if basis in details]
    blocks = Blocks(2 * model.depth, options["blocks"])
    sums: dict[int, dict[str, Tensor]] = {}  # block -> basis -> its sum; absent while empty

    def sources(current: int | None) -> list[Source]:
        offered: list[Source] = [(embedding, "summary")]
        for block, bases in sorted(sums.items()):
            summary = bases["summary"]
            offered.append((summary, "summary"))
            if block == current and not options.get("partial_details", True):
                continue
            for basis in details:
                detail = bases[basis]
                offered.append((model.matching.ratio(detail, summary) * detail, basis))
        return offered

    for layer, kind, sublayer in sublayers(model):
        block = blocks.block(sublayer)
        router = f"model.layers.{layer}.{ROUTER[kind]}"
        # Sublayer 1 has no router: it reads e, wherever a program puts it.
        h = embedding if sublayer == 0 else route(model, router, sources(block), details)
        update = model.update(layer, kind, h)
        before = sums.get(block, {})
        signs = {"summary": 1} | {basis: blocks.sign(basis, sublayer) for basis in details}
        sums[block] = {basis: before.get(basis, 0) + sign * update for basis, sign in signs.items()}
    return route(model, READ_OUT, sources(None), details)


SCHEMES: dict[str, Callable] = {
    "prenorm": prenorm,
    "rezero": rezero,
    "layerscale": layerscale,
    "block_layerscale": block_layerscale,
    "layerdrop": layerdrop,
    "gated": gated,
    "act": act,
    "denseformer": denseformer,
    "mhc_lite": mhc_lite,
    "full_attnres": full_attnres,
    "block_attnres": block_routed,
    "haares": block_routed,
    "wav": block_routed,
}


def run(model, embedding: Tensor) -> tuple[Tensor, Tensor, Halting | None]:
    """(what the final norm reads, auxiliary loss, halting of act)."""
    result = SCHEMES[model.residual["scheme"]](model, embedding)
    if isinstance(result, tuple):
        return result
    return result, torch.zeros((), dtype=embedding.dtype), None
