"""ResidualStream: the parameters of a residual scheme as a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wavroute import _schemes
from wavroute.nn import additive, routed, several
from wavroute.nn.state import State
from wavroute.nn.sublayers import own_name, sites_of

_STATES: dict[str, Callable[..., State]] = {
    "prenorm": additive.Additive,
    "rezero": additive.SublayerScaled,
    "layerscale": additive.SublayerScaled,
    "block_layerscale": additive.BlockScaled,
    "layerdrop": additive.LayerDrop,
    "gated": additive.Gated,
    "act": additive.Act,
    "denseformer": several.DenseFormer,
    "mhc_lite": several.MhcLite,
    "full_attnres": routed.routed,
    "block_attnres": routed.routed,
    "haares": routed.routed,
    "wav": routed.routed,
}
# Schemes whose parameters are of layers, not of sublayers.
_OF_LAYERS = ("act", "denseformer", "layerdrop")


class Branch(nn.Module):
    """A part of a checkpoint's names: model.layers.0 ..."""

    def reach(self, path: Sequence[str]) -> Branch:
        """The branch at ``path``, made where it isn't there."""
        if not path:
            return self
        if path[0] not in self._modules:
            self.add_module(path[0], Branch())
        return self.get_submodule(path[0]).reach(path[1:])  # type: ignore[operator]


class ResidualStream(nn.Module):
    """What connects the sublayers of a deep network: each reads from the stream and writes to it.

    The module holds the parameters of a scheme alone, under their checkpoint names and with the
    initial values that the ``wavroute`` command gives them. :meth:`begin` opens the state of a
    pass::

        residual = wavroute.nn.ResidualStream("wav", layers=12, width=256)
        s = residual.begin(e)                         # e [B, T, d]
        for i, sublayer in enumerate(sublayers):      # attention, MLP, attention, ...
            s.write(i, sublayer(s.read(i, norm=gains[i])))
        x = s.read_out(norm=final_gain)
        loss = loss_of(x) + s.auxiliary_loss()

    scheme: a name of :func:`wavroute.schemes`; docs/method.md has the mathematics and the sources.
    layers: pairs of an attention and an MLP sublayer. Instead of it, roles: one of "attention",
    "mlp" and "cross_attention" for each sublayer; a layer ends before a role that it already has.
    wav's phase is +1 for attention and cross-attention [cross-attention: ours], -1 for an MLP.
    Defaults that depend on depth count a layer for every two sublayers.
    width: d.
    eps: under the root of the routers' key norms, and of a read's norm where that has none.
    seed: of the initial values that are drawn; None: torch's generator chooses.
    options: the scheme's own, as in a configuration's ``[residual]``.

    Errors: ValueError for names, values or sizes that contradict each other, with the nearest
    valid ones.
    """

    def __init__(self, scheme: str = "wav", *, layers: int | None = None,
                 roles: Sequence[str] | None = None, width: int, eps: float = 1e-6,
                 seed: int | None = None, **options: Any) -> None:
        super().__init__()
        if (layers is None) == (roles is None):
            raise ValueError("expected either layers or roles, given "
                             + ("neither" if layers is None else "both"))
        self.sites = sites_of(roles if roles is not None else ["attention", "mlp"] * layers)
        self.scheme, self.width, self.eps = scheme, width, eps
        self.layers = self.sites[-1].layer + 1 if self.sites else 0
        if seed is None:
            seed = int(torch.randint(2**62, (), device="cpu"))
        described, values = _schemes.parameters(
            scheme, options, layers=self._counted_layers(), width=width, eps=eps, seed=seed)
        if scheme not in _STATES:
            raise NotImplementedError(f"residual scheme {scheme} is not in wavroute.nn yet")
        self.options: dict[str, Any] = described["options"]
        self.block_length: int = described["block_length"]
        #: Whether sublayers have norms of their own: not in rezero with norm = "none".
        self.has_sublayer_norms: bool = described["norms"]
        #: gated: alpha is held at 1, as in the first part of a training. Yours to set.
        self.frozen: bool = self.options.get("frozen", False)
        #: Names of the parameters that weight decay is meant for.
        self.decayed: frozenset[str] = frozenset()
        self.model = Branch()
        self._holders: dict[str, tuple[Branch, str]] = {}
        for name, decay in zip(described["names"], described["decay"]):
            self._add(name, values[name], decay)
        if scheme == "mhc_lite":  # beside the parameters, so that it moves with them
            self.model.register_buffer(
                "permutations", several.permutations(self.options["streams"]), persistent=False)

    def begin(self, e: Tensor, *, kept: Sequence[int] | None = None) -> State:
        """Opens the state of one pass. e: [B, T, d], what the first sublayer reads, in float,
        double or a half type. kept: of layerdrop, the layers that run, in place of a draw.

        Errors: ValueError for another shape.
        """
        if kept is None:
            return _STATES[self.scheme](self, e)
        if self.scheme != "layerdrop":
            raise ValueError(f"expected kept with layerdrop alone, given with {self.scheme}")
        return additive.LayerDrop(self, e, kept)

    def value(self, name: str) -> Tensor:
        """The parameter of this checkpoint name."""
        branch, leaf = self._holders[name]
        return getattr(branch, leaf)

    def ends_layer(self, i: int) -> bool:
        """Whether sublayer ``i`` is the last of its layer."""
        return i + 1 == len(self.sites) or self.sites[i + 1].layer != self.sites[i].layer

    def extra_repr(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{self.scheme!r}, sublayers={len(self.sites)}, width={self.width}{options}"

    def _counted_layers(self) -> int:
        if self.scheme in _OF_LAYERS:
            return self.layers
        has_blocks = any(option["name"] == "blocks" for known in _schemes.schemes()
                         if known["name"] == self.scheme for option in known["options"])
        if has_blocks and len(self.sites) % 2 == 1:
            raise ValueError(f"expected an even number of sublayers for {self.scheme}, which has "
                             f"blocks, given {len(self.sites)}")
        return (len(self.sites) + 1) // 2

    def _add(self, name: str, value: Tensor, decay: bool) -> None:
        own = own_name(name, self.sites)
        if own is None:
            return
        *path, leaf = own.split(".")
        branch = self.model.reach(path[1:])
        branch.register_parameter(leaf, nn.Parameter(value))
        self._holders[own] = (branch, leaf)
        if decay:
            self.decayed |= {own}
