"""A decoder-only transformer under any residual scheme of wavroute, for inference with transformers.

The equations are those of wavroute's docs/method.md. Written by `wavroute export --format hf` for
schemes that are no plain Llama; Apache-2.0.
"""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, rotate_half

from .configuration_wavroute import WavrouteConfig

KINDS = ("self_attn", "mlp")  # the two sublayers of a layer, in this order
PRENORM = {"self_attn": "input_layernorm", "mlp": "post_attention_layernorm"}
ROUTER = {"self_attn": "self_attention_res", "mlp": "mlp_res"}
READ_OUT = "output_attn_res"
IMPLIED_DETAILS = {"haares": ["split"], "wav": ["phase", "split"]}
ROUTED = ("full_attnres", "block_attnres", "haares", "wav")


class Part(nn.Module):
    """A place in the tree of names that a checkpoint's parameters have."""


def add_parameter(root, name, shape):
    *path, last = name.split(".")
    for step in path:
        if not hasattr(root, step):
            root.add_module(step, Part())
        root = getattr(root, step)
    root.register_parameter(last, nn.Parameter(torch.empty(shape)))


def details_of(residual):
    wanted = residual.get("details", IMPLIED_DETAILS.get(residual["scheme"], []))
    return [basis for basis in ("phase", "split") if basis in wanted]


def router_shapes(config, prefix):
    shapes = {f"{prefix}_proj.weight": (1, config.hidden_size),
              f"{prefix}_norm.weight": (config.hidden_size,)}
    details = details_of(config.residual)
    return shapes | ({f"{prefix}_bias": (len(details),)} if details else {})


def scheme_shapes(config, layer):
    """What a scheme adds to a layer."""
    width, residual, shapes = config.hidden_size, config.residual, {}
    scheme = residual["scheme"]
    for kind in KINDS:
        if scheme in ("rezero", "layerscale"):
            shapes[f"{kind}_residual_scale"] = (1 if scheme == "rezero" else width,)
        if scheme == "gated":
            shapes[f"{kind}_gate.fc1.weight"] = (residual["rank"],
                                                 len(residual["windows"]) * width)
            out = width if residual["per_channel"] else 1
            shapes[f"{kind}_gate.fc2.weight"] = (out, residual["rank"])
            shapes[f"{kind}_gate.fc2.bias"] = (out,)
        if scheme == "mhc_lite":
            streams = residual["streams"]
            shapes[f"{kind}_hc_norm.weight"] = (streams * width,)
            for part, rows in (("pre", streams), ("post", streams),
                               ("res", math.factorial(streams))):
                shapes[f"{kind}_hc_{part}.weight"] = (rows, streams * width)
                shapes[f"{kind}_hc_{part}.bias"] = (rows,)
                shapes[f"{kind}_hc_{part}_scale"] = (1,)
        if scheme in ROUTED and not (layer == 0 and kind == "self_attn"):
            shapes |= router_shapes(config, ROUTER[kind])
    if scheme == "denseformer" and (layer + 1) % residual["period"] == 0:
        shapes["depth_weights"] = ((layer + 1) // residual["dilation"] + 1,)
    if scheme == "act" and (residual["shared"] or layer < config.num_hidden_layers - 1):
        shapes |= {"halt.weight": (1, width), "halt.bias": (1,)}
    return shapes


def layer_shapes(config, layer):
    width, hidden, size = config.hidden_size, config.intermediate_size, config.head_dim
    query, key = config.num_attention_heads * size, config.num_key_value_heads * size
    shapes = {"self_attn.q_proj.weight": (query, width), "self_attn.k_proj.weight": (key, width),
              "self_attn.v_proj.weight": (key, width), "self_attn.o_proj.weight": (width, query),
              "mlp.gate_proj.weight": (hidden, width), "mlp.up_proj.weight": (hidden, width),
              "mlp.down_proj.weight": (width, hidden)}
    if config.attention_bias:
        shapes |= {"self_attn.q_proj.bias": (query,), "self_attn.k_proj.bias": (key,),
                   "self_attn.v_proj.bias": (key,), "self_attn.o_proj.bias": (width,)}
    if config.residual.get("norm") != "none":
        shapes |= {f"{name}.weight": (width,) for name in PRENORM.values()}
    return shapes | scheme_shapes(config, layer)


def rms_norm(x, gain, eps):
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (gain.float() * normed).to(x.dtype)


class LastRows(DynamicLayer):
    """What the gates of all sublayers keep of earlier positions, [B,sublayers,kept,d], and which of
    these exist, [B,sublayers,kept,1]. A layer of the cache, behind those of the attention, so that
    what reorders or repeats the rows of a batch reaches it."""

    is_croppable = False

    def replace(self, rows, known):
        if not self.is_initialized:
            self.lazy_initialization(rows, known)
        self.keys, self.values = rows, known

    def crop(self, tokens_to_remove):
        if tokens_to_remove:
            raise ValueError("the cache of a gated model keeps the rows of its windows alone: it "
                             "cannot be cropped, as assisted generation does")


class Pass:
    """One forward: the positions, the mask, the cache, and the sublayers of the model."""

    def __init__(self, model, rotary, allowed, cache, valid):
        self.model, self.config, self.residual = model, model.config, model.config.residual
        self.rotary, self.allowed, self.cache, self.valid = rotary, allowed, cache, valid
        self.earlier = next((layer for layer in cache.layers if isinstance(layer, LastRows)),
                            None) if cache is not None else None
        self.kept = []  # rows and whether they exist, of each sublayer

    def keep_rows(self):
        if self.cache is None or not self.kept:
            return
        if self.earlier is None:
            self.earlier = LastRows()
            self.cache.layers.append(self.earlier)
        device = self.kept[0][0].device
        self.earlier.replace(*(torch.stack([part.to(device) for part in parts], 1)
                               for parts in zip(*self.kept)))

    def sublayers(self):
        for layer in range(self.config.num_hidden_layers):
            for kind in KINDS:
                yield layer, kind, 2 * layer + KINDS.index(kind)

    def parameter(self, layer, name):
        return self.model.get_parameter(f"layers.{layer}.{name}")

    def update(self, layer, kind, h, visit=None, prenorm=True):
        """u = f(RMSNorm(h)), [B,T,d]; visit: which cache, where a layer runs more than once."""
        if prenorm:
            h = rms_norm(h, self.parameter(layer, f"{PRENORM[kind]}.weight"),
                         self.config.rms_norm_eps)
        if kind == "mlp":
            gate, up, down = (self.parameter(layer, f"mlp.{name}_proj.weight")
                              for name in ("gate", "up", "down"))
            h = h.to(gate.dtype)
            return functional.linear(
                functional.silu(functional.linear(h, gate)) * functional.linear(h, up), down)
        return self.attention(layer, h, layer if visit is None else visit)

    def attention(self, layer, x, visit):
        batch, length, _ = x.shape

        def project(name, x):
            bias = self.config.attention_bias and self.parameter(layer, f"self_attn.{name}_proj.bias")
            weight = self.parameter(layer, f"self_attn.{name}_proj.weight")
            return functional.linear(x.to(weight.dtype), weight, bias if bias is not False else None)

        query, key, value = (project(name, x).view(batch, length, -1, self.config.head_dim)
                             .transpose(1, 2) for name in "qkv")
        cos, sin = (part.unsqueeze(1) for part in self.rotary)
        query = query * cos + rotate_half(query) * sin
        key = key * cos + rotate_half(key) * sin
        if self.cache is not None:
            key, value = self.cache.update(key, value, visit)
        repeats = self.config.num_attention_heads // self.config.num_key_value_heads
        mixed = functional.scaled_dot_product_attention(
            query, key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1),
            self.allowed)
        return project("o", mixed.transpose(1, 2).reshape(batch, length, -1))


# ---- additive ---------------------------------------------------------------------------------

def additive(run, e):
    residual, h = run.residual, e
    scheme, blocks = residual["scheme"], None
    if scheme == "block_layerscale":
        blocks = Blocks(2 * run.config.num_hidden_layers, residual["blocks"])
    for layer, kind, sublayer in run.sublayers():
        update = run.update(layer, kind, h, prenorm=residual.get("norm", "pre") == "pre")
        if scheme in ("rezero", "layerscale"):
            update = run.parameter(layer, f"{kind}_residual_scale") * update
        elif blocks:
            scales = run.model.get_parameter("block_residual_scale")
            update = scales[blocks.block(sublayer)] * update
        h = h + update
    return h


def trailing_means(run, sublayer, h):
    """Means of h over the trailing windows, of the positions that exist and are no padding."""
    windows = run.residual["windows"]
    valid, kept = run.valid[:, -h.shape[1]:, None].to(h.dtype), max(windows) - 1
    rows, known = h * valid, valid
    if run.cache is not None and kept > 0:
        if run.earlier is not None and run.earlier.is_initialized:
            rows = torch.cat([run.earlier.keys[:, sublayer].to(rows.device), rows], 1)
            known = torch.cat([run.earlier.values[:, sublayer].to(known.device), known], 1)
        run.kept.append((rows[:, -kept:], known[:, -kept:]))
    before, means = rows.shape[1] - h.shape[1], []
    for window in windows:
        sums, counts = [], []
        for t in range(before, rows.shape[1]):
            span = slice(max(0, t - window + 1), t + 1)
            sums.append(rows[:, span].sum(1))
            counts.append(known[:, span].sum(1))
        means.append(torch.stack(sums, 1) / torch.stack(counts, 1).clamp(min=1))
    return torch.cat(means, -1)


def gated(run, e):
    if run.residual.get("gate_reuse", "none") != "none":
        raise ValueError("gate_reuse is computed by wavroute alone")
    h = e
    for layer, kind, sublayer in run.sublayers():
        update = run.update(layer, kind, h)
        if not run.residual.get("frozen", False):
            fc1, fc2, bias = (run.parameter(layer, f"{kind}_gate.{name}")
                              for name in ("fc1.weight", "fc2.weight", "fc2.bias"))
            hidden = functional.silu(functional.linear(trailing_means(run, sublayer, h), fc1))
            update = torch.sigmoid(functional.linear(hidden, fc2, bias)) * update
        h = h + update
    return h


# ---- adaptive computation time ----------------------------------------------------------------

def act(run, e):
    residual, depth = run.residual, run.config.num_hidden_layers
    state, output = e, torch.zeros_like(e)
    running = torch.ones(e.shape[:2], dtype=torch.bool, device=e.device)
    total = torch.zeros(e.shape[:2], dtype=e.dtype, device=e.device)
    for n in range(1, depth + 1):
        layer = 0 if residual["shared"] else n - 1
        after = state + run.update(layer, "self_attn", state, visit=n - 1)
        after = after + run.update(layer, "mlp", after)
        state = torch.where(running[..., None], after, state)
        if n == depth:
            halts, p = running, torch.zeros_like(total)
        else:
            p = torch.sigmoid(state @ run.parameter(layer, "halt.weight")[0] +
                              run.parameter(layer, "halt.bias"))
            halts = running & (total + p >= 1 - residual["epsilon"])
        goes_on = running & ~halts
        share = torch.where(halts, 1 - total, torch.where(goes_on, p, torch.zeros_like(p)))
        output = output + share[..., None] * state
        total = total + torch.where(goes_on, p, torch.zeros_like(p))
        running = goes_on
    return output


# ---- several layers, several streams ----------------------------------------------------------

def denseformer(run, e):
    dilation, period = run.residual["dilation"], run.residual["period"]
    outputs, y = [e], e
    for layer in range(run.config.num_hidden_layers):
        x = y + run.update(layer, "self_attn", y)
        x = x + run.update(layer, "mlp", x)
        outputs.append(x)
        i = layer + 1
        y = x
        if i % period == 0:
            weights = run.parameter(layer, "depth_weights")
            y = sum(weight * outputs[j]
                    for weight, j in zip(weights, range(i % dilation, i + 1, dilation)))
    return y


def mhc_lite(run, e):
    count = run.residual["streams"]
    permutations = list(itertools.permutations(range(count)))  # lexicographic
    streams = [e] * count
    for layer, kind, _ in run.sublayers():
        def part(name):
            return run.parameter(layer, f"{kind}_hc_{name}")

        joined = rms_norm(torch.cat(streams, -1), part("norm.weight"), run.config.rms_norm_eps)

        def logits(name):
            return (part(f"{name}_scale") * functional.linear(joined, part(f"{name}.weight")) +
                    part(f"{name}.bias"))

        read, written = torch.sigmoid(logits("pre")), 2 * torch.sigmoid(logits("post"))
        shares = logits("res").softmax(-1)
        h = sum(read[..., r, None] * stream for r, stream in enumerate(streams))
        update = run.update(layer, kind, h)
        carried = [sum(shares[..., k, None] * streams[taken[r]]
                       for k, taken in enumerate(permutations)) for r in range(count)]
        streams = [carried[r] + written[..., r, None] * update for r in range(count)]
    return sum(streams)


# ---- routed ------------------------------------------------------------------------------------

class Blocks:
    """M sublayers in N blocks of K = ceil(M/N); everything counts from 0."""

    def __init__(self, sublayers, count):
        self.sublayers, self.length = sublayers, -(-sublayers // count)

    def block(self, sublayer):
        return sublayer // self.length

    def sign(self, basis, sublayer):
        if basis == "phase":
            return 1 if sublayer % 2 == 0 else -1
        first = self.block(sublayer) * self.length
        own = min(self.length, self.sublayers - first)
        return 1 if sublayer - first < own / 2 else -1


def route(run, prefix, sources):
    """h = sum_j a_j v_j over the sources (a value, the number of its bias or None)."""
    query = run.model.get_parameter(f"{prefix}_proj.weight")[0].float()
    query = query * run.model.get_parameter(f"{prefix}_norm.weight").float()
    logits = []
    for value, bias in sources:
        wide = value.float()
        logit = (wide @ query) * torch.rsqrt(wide.square().mean(-1) + run.config.rms_norm_eps)
        if bias is not None:
            logit = logit + run.model.get_parameter(f"{prefix}_bias")[bias].float()
        logits.append(logit)
    weights = torch.stack(logits, -1).softmax(-1)
    return sum(weights[..., j, None].to(value.dtype) * value for j, (value, _) in enumerate(sources))


def matched(detail, summary):
    def square(x):
        return x.float().square().mean(-1, keepdim=True) + 1e-12

    return torch.sqrt(square(summary) / square(detail)).to(detail.dtype) * detail


def full_attnres(run, e):
    sources = [(e, None)]
    for layer, kind, sublayer in run.sublayers():
        h = route(run, f"layers.{layer}.{ROUTER[kind]}", sources) if sublayer else e
        sources.append((run.update(layer, kind, h), None))
    return route(run, READ_OUT, sources)


def block_routed(run, e):
    details = details_of(run.residual)
    blocks = Blocks(2 * run.config.num_hidden_layers, run.residual["blocks"])
    finished, sums = [(e, None)], {}

    def offered():
        if not sums:
            return []
        summary = sums["summary"]
        return [(summary, None)] + [(matched(sums[basis], summary), i)
                                    for i, basis in enumerate(details)]

    for layer, kind, sublayer in run.sublayers():
        if sublayer and sublayer % blocks.length == 0:
            finished, sums = finished + offered(), {}
        running = offered()
        if not run.residual.get("partial_details", True):
            running = running[:1]
        h = route(run, f"layers.{layer}.{ROUTER[kind]}", finished + running) if sublayer else e
        update = run.update(layer, kind, h)
        for basis in ["summary", *details]:
            sign = 1 if basis == "summary" else blocks.sign(basis, sublayer)
            sums[basis] = sums[basis] + sign * update if basis in sums else sign * update
    return route(run, READ_OUT, finished + offered())


SCHEMES = {"prenorm": additive, "rezero": additive, "layerscale": additive,
           "block_layerscale": additive, "layerdrop": additive, "gated": gated, "act": act,
           "denseformer": denseformer, "mhc_lite": mhc_lite, "full_attnres": full_attnres,
           "block_attnres": block_routed, "haares": block_routed, "wav": block_routed}


class WavroutePreTrainedModel(PreTrainedModel):
    config_class = WavrouteConfig
    base_model_prefix = "model"
    _supports_sdpa = True


class WavrouteModel(WavroutePreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        shared = config.residual.get("shared", False)
        for layer in range(1 if shared else config.num_hidden_layers):
            for name, shape in layer_shapes(config, layer).items():
                add_parameter(self, f"layers.{layer}.{name}", shape)
        if config.residual["scheme"] in ROUTED:
            for name, shape in router_shapes(config, READ_OUT).items():
                add_parameter(self, name, shape)
        if config.residual["scheme"] == "block_layerscale":
            add_parameter(self, "block_residual_scale",
                          (config.residual["blocks"], config.hidden_size))
        add_parameter(self, "norm.weight", (config.hidden_size,))
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, position_ids=None,
                past_key_values=None, inputs_embeds=None):
        e = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        batch, length, _ = e.shape
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        valid = torch.ones(batch, past + length, dtype=torch.bool, device=e.device)
        if attention_mask is not None:
            valid = attention_mask[:, :past + length].bool()
        if position_ids is None:
            position_ids = (valid.long().cumsum(-1) - 1).clamp(min=0)[:, past:]
        # Every position sees the earlier ones that are no padding, and itself.
        steps = torch.arange(past + length, device=e.device)
        causal = steps[None, :] <= steps[past:, None]
        allowed = (causal & valid[:, None, :]) | (steps[None, :] == steps[past:, None])
        run = Pass(self, self.rotary_emb(e, position_ids), allowed[:, None], past_key_values, valid)
        h = SCHEMES[self.config.residual["scheme"]](run, e)
        run.keep_rows()
        return rms_norm(h, self.get_parameter("norm.weight"), self.config.rms_norm_eps)


class WavrouteForCausalLM(WavroutePreTrainedModel, GenerationMixin):
    def __init__(self, config):
        super().__init__(config)
        self.model = WavrouteModel(config)
        self.lm_head = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids=None, attention_mask=None, position_ids=None,
                past_key_values=None, inputs_embeds=None, labels=None, use_cache=None,
                logits_to_keep=0, **_):
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = DynamicCache()
        h = self.model(input_ids, attention_mask, position_ids, past_key_values, inputs_embeds)
        if logits_to_keep:
            h = h[:, -logits_to_keep:]
        head = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        logits = functional.linear(h.to(head.dtype), head)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(),
                                            labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)
