"""The decoder-only language model of the ``wavroute`` command as a PyTorch module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavroute._library import ops
from wavroute.nn.residual import ResidualStream

if TYPE_CHECKING:
    from wavroute.models import Tokenizer


class Norm(nn.Module):
    """The gain of an RMSNorm; the stream's reads take the norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Attention(nn.Module):
    """Causal attention with a rotary embedding, x [B, T, d] -> [B, T, d]."""

    def __init__(self, config: Mapping[str, Any], head_width: int, bias: bool) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.heads: int = config["num_attention_heads"]
        self.kv_heads: int = config["num_key_value_heads"]
        self.head_width = head_width
        self.q_proj = nn.Linear(width, self.heads * head_width, bias=bias)
        self.k_proj = nn.Linear(width, self.kv_heads * head_width, bias=bias)
        self.v_proj = nn.Linear(width, self.kv_heads * head_width, bias=bias)
        self.o_proj = nn.Linear(self.heads * head_width, width, bias=bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        def heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

        q, k = rotated(heads(self.q_proj(x)), cos, sin), rotated(heads(self.k_proj(x)), cos, sin)
        mixed = functional.scaled_dot_product_attention(
            q, k, heads(self.v_proj(x)), is_causal=True, enable_gqa=self.kv_heads != self.heads)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """SwiGLU, x [B, T, d] -> [B, T, d]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, heads, T, head width] by the angles of cos and sin [T, head width / 2]: the half-split
    rotation of the Llama family."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class Decoder(nn.Module):
    """A Llama whose residual stream is a scheme of the registry.

    Its state_dict has the names of a checkpoint, with the values that a run of the ``wavroute``
    command with this seed starts from; a prenorm model's is that of ``LlamaForCausalLM``.

    config: the fields of a config.json: ``hidden_size``, ``num_hidden_layers``,
    ``num_attention_heads``, ``vocab_size``, ``intermediate_size``, ... and ``residual``,
    {"scheme": name, option: value} (none: prenorm).
    seed: of the initial values; None: torch's generator chooses.

    Errors: ValueError for a key, a size or an option that can't be.
    """

    #: Of the run that it was loaded from; None: there is none.
    tokenizer: Tokenizer | None
    _residual: ResidualStream
    _frequencies: Tensor

    def __init__(self, config: Mapping[str, Any], *, seed: int | None = None) -> None:
        super().__init__()
        if seed is None:
            seed = int(torch.randint(2**62, (), device="cpu"))
        self._build(*ops.decoder_parameters(json.dumps(dict(config)), seed))

    @classmethod
    def described(cls, description: str, values: list[Tensor]) -> Decoder:
        """As ``ops.load_decoder`` gives them."""
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model._build(description, values)
        return model

    def _build(self, text: str, values: list[Tensor]) -> None:
        description = json.loads(text)
        #: Every field of config.json.
        self.config: dict[str, Any] = description["config"]
        #: The names of the parameters that weight decay is meant for: the matrices.
        self.decayed = frozenset(name for name, decay in zip(
            description["names"], description["decay"]) if decay)
        self.tokenizer = None
        #: The folder that it was loaded from; "": none.
        self.folder: str = description["folder"]
        config, residual = self.config, dict(self.config["residual"])
        residual.pop("format", None)
        stream = ResidualStream(residual.pop("scheme"), layers=config["num_hidden_layers"],
                                width=config["hidden_size"], eps=config["rms_norm_eps"], seed=0,
                                **residual)
        # Its parameters stand among the decoder's own, under the names of a checkpoint; as a child
        # it would give each of them a second name.
        self.model = stream.model
        object.__setattr__(self, "_residual", stream)
        self._stored: list[int] = description["stored_layers"]
        # Of the rotary embedding, [head width / 2] double; as integers, which no conversion of the
        # model's type rounds.
        frequencies = torch.tensor(description["rope_frequencies"], dtype=torch.float64,
                                   device="cpu")
        self.register_buffer("_frequencies", frequencies.view(torch.int64), persistent=False)
        self._rope_scale: float = description["rope_scale"]
        with torch.device("meta"):  # no memory, and no draw, for values that are given
            self._add_modules(description)
        for name, value in zip(description["names"], values):
            path, _, leaf = name.rpartition(".")
            self.get_submodule(path).register_parameter(leaf, nn.Parameter(value))

    def _add_modules(self, description: dict[str, Any]) -> None:
        config, model = self.config, self.model
        width = config["hidden_size"]
        model.add_module("embed_tokens", nn.Embedding(config["vocab_size"], width))
        for layer in dict.fromkeys(self._stored):
            branch = model.reach(["layers", str(layer)])
            if description["norms"]:
                branch.add_module("input_layernorm", Norm(width))
                branch.add_module("post_attention_layernorm", Norm(width))
            branch.add_module("self_attn", Attention(
                config, description["head_width"], description["attention_bias"]))
            branch.add_module("mlp", Mlp(width, config["intermediate_size"]))
        model.add_module("norm", Norm(width))
        if not config["tie_word_embeddings"]:
            self.lm_head = nn.Linear(width, config["vocab_size"], bias=False)

    @property
    def residual(self) -> ResidualStream:
        """The scheme's parameters, which are the decoder's own too."""
        return self._residual

    def train(self, mode: bool = True) -> Decoder:
        super().train(mode)
        self._residual.train(mode)
        return self

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> Tensor:
        """ids: [B, T] int64. targets: [B, T] int64, -100 where nothing is to be predicted.

        Returns: the logits [B, T, V]; with targets the loss, a scalar: the mean cross-entropy in
        nats and the scheme's own term.
        """
        layers = self.model.layers
        x = self.model.embed_tokens(ids)
        cos, sin = self._rotation(ids.shape[1], x.device)
        s = self._residual.begin(x)
        for layer, stored in enumerate(self._stored):
            if not s.runs(2 * layer):  # layerdrop
                continue
            branch = getattr(layers, str(stored))
            norms = (None, None)
            if self._residual.has_sublayer_norms:
                norms = (branch.input_layernorm.weight, branch.post_attention_layernorm.weight)
            x = s.read(2 * layer, norm=norms[0])
            s.write(2 * layer, branch.self_attn(x, cos, sin))
            x = s.read(2 * layer + 1, norm=norms[1])
            s.write(2 * layer + 1, branch.mlp(x))
        x = s.read_out(norm=self.model.norm.weight)
        tied = self.config["tie_word_embeddings"]
        head = self.model.embed_tokens.weight if tied else self.lm_head.weight
        logits = functional.linear(x, head)
        if targets is None:
            return logits
        loss = functional.cross_entropy(logits.flatten(0, 1).to(s.auxiliary_loss().dtype),
                                        targets.flatten())
        return loss + s.auxiliary_loss()

    def _rotation(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin [T, head width / 2] of the positions 0..T-1."""
        exact = torch.float64
        place = torch.arange(length, dtype=exact, device=device).unsqueeze(-1)
        angle = place * self._frequencies.view(exact)
        kept = self.model.norm.weight.dtype
        wide = exact if kept == exact else torch.float32
        return ((angle.cos() * self._rope_scale).to(wide),
                (angle.sin() * self._rope_scale).to(wide))
