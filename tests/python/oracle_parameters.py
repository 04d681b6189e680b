"""The parameters that a checkpoint of each scheme holds (docs/method.md §7), and values for them
that are far from every initial value, so that every term of a formula has an effect."""

import math
import zlib

import torch
from torch import Tensor

from oracle_schemes import IMPLIED_DETAILS, ROUTER

ADDITIVE = ("prenorm", "rezero", "layerscale", "block_layerscale", "layerdrop", "gated")
ROUTED = ("full_attnres", "block_attnres", "haares", "wav")
PRENORMS = ("input_layernorm", "post_attention_layernorm")

DEFAULTS = {
    "rezero": {"norm": "pre"},
    "layerdrop": {"p": 0.2, "schedule": "uniform", "rescale": False},
    "gated": {"windows": [1, 2, 4, 8], "per_channel": False, "frozen": False},
    "act": {"tau": 1e-3, "epsilon": 0.01, "shared": False},
    "denseformer": {"dilation": 1, "period": 1},
    "mhc_lite": {"streams": 4},
    "block_layerscale": {"blocks": 2},
    "block_attnres": {"blocks": 2, "partial_details": True},
    "haares": {"blocks": 2, "partial_details": True},
    "wav": {"blocks": 2, "partial_details": True},
}


def make_config(scheme: str, *, layers=4, width=24, heads=2, kv_heads=2, hidden=40, vocab=19,
                tie=False, **options) -> dict:
    """A config.json of our own with every option of the scheme spelled out."""
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": hidden,
        "vocab_size": vocab,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tie,
        "residual": {"scheme": scheme} | DEFAULTS.get(scheme, {}) | options,
    }


def parameter_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Checkpoint name -> shape, for every parameter of the model that `config` describes."""
    width, residual = config["hidden_size"], config["residual"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width),
              "model.norm.weight": (width,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    stored = 1 if residual.get("shared") else config["num_hidden_layers"]
    for layer in range(stored):
        for name, shape in (_decoder(config) | _of_scheme(config, layer)).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    if residual["scheme"] in ROUTED:
        shapes |= {f"model.output_attn_res{name}": s for name, s in _router(config).items()}
    if residual["scheme"] == "block_layerscale":
        shapes["model.block_residual_scale"] = (residual["blocks"], width)
    return shapes


def _decoder(config: dict) -> dict[str, tuple[int, ...]]:
    width, hidden = config["hidden_size"], config["intermediate_size"]
    keys = width // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {
        "self_attn.q_proj.weight": (width, width),
        "self_attn.k_proj.weight": (keys, width),
        "self_attn.v_proj.weight": (keys, width),
        "self_attn.o_proj.weight": (width, width),
        "mlp.gate_proj.weight": (hidden, width),
        "mlp.up_proj.weight": (hidden, width),
        "mlp.down_proj.weight": (width, hidden),
    }
    if config["residual"].get("norm") != "none":
        shapes |= {f"{name}.weight": (width,) for name in PRENORMS}
    return shapes


def _router(config: dict) -> dict[str, tuple[int, ...]]:
    width, residual = config["hidden_size"], config["residual"]
    details = residual.get("details", IMPLIED_DETAILS.get(residual["scheme"], []))
    shapes = {"_proj.weight": (1, width), "_norm.weight": (width,)}
    return shapes | ({"_bias": (len(details),)} if details else {})


def _of_scheme(config: dict, layer: int) -> dict[str, tuple[int, ...]]:
    width, residual = config["hidden_size"], config["residual"]
    scheme, shapes = residual["scheme"], {}
    for kind in ("self_attn", "mlp"):
        if scheme in ("rezero", "layerscale"):
            shapes[f"{kind}_residual_scale"] = (1 if scheme == "rezero" else width,)
        if scheme == "gated":
            rank = residual.get("rank", max(2, round(0.008 * width)))
            out = width if residual["per_channel"] else 1
            shapes[f"{kind}_gate.fc1.weight"] = (rank, len(residual["windows"]) * width)
            shapes[f"{kind}_gate.fc2.weight"] = (out, rank)
            shapes[f"{kind}_gate.fc2.bias"] = (out,)
        if scheme == "mhc_lite":
            streams = residual["streams"]
            columns = streams * width
            shapes[f"{kind}_hc_norm.weight"] = (columns,)
            for part, rows in (("pre", streams), ("post", streams),
                               ("res", math.factorial(streams))):
                shapes[f"{kind}_hc_{part}.weight"] = (rows, columns)
                shapes[f"{kind}_hc_{part}.bias"] = (rows,)
                shapes[f"{kind}_hc_{part}_scale"] = (1,)
        if scheme in ROUTED and not (layer == 0 and kind == "self_attn"):
            shapes |= {f"{ROUTER[kind]}{name}": s for name, s in _router(config).items()}
    if scheme == "denseformer" and (layer + 1) % residual["period"] == 0:
        shapes["depth_weights"] = ((layer + 1) // residual["dilation"] + 1,)
    if scheme == "act" and (residual["shared"] or layer < config["num_hidden_layers"] - 1):
        shapes |= {"halt.weight": (1, width), "halt.bias": (1,)}
    return shapes


def random_parameters(config: dict, seed: int = 1) -> dict[str, Tensor]:
    """float64; a parameter's values depend on its name and the seed alone."""
    return {name: _random(name, shape, seed) for name, shape in parameter_shapes(config).items()}


def _random(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    if name.endswith("norm.weight"):
        return 1 + 0.3 * noise
    if name.endswith("_res_bias"):
        return -1 + 0.5 * noise
    if name.endswith("halt.bias"):
        return -0.8 + 0.3 * noise
    if name.endswith(("residual_scale", "_pre_scale", "_post_scale", "_res_scale")):
        return 0.6 + 0.3 * noise
    if name.endswith("depth_weights"):
        return 0.3 + 0.5 * noise
    if name.endswith("embed_tokens.weight"):
        return noise
    return noise / math.sqrt(shape[-1])  # matrices, queries, gates, halting weights
