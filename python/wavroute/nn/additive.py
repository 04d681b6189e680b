"""Schemes whose stream is one tensor to which scaled updates are added (docs/method.md, 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wavroute._library import ops
from wavroute.nn.state import State, in_transform

if TYPE_CHECKING:
    from wavroute.nn.residual import ResidualStream


class Additive(State):
    """h_{l+1} = h_l + scale_l u_l. An update waits for the read after it, which takes it in with
    its norm in one pass."""

    def __init__(self, residual: ResidualStream, e: Tensor) -> None:
        super().__init__(residual, e)
        self._h = e.to(self._stream_type)
        self._update: Tensor | None = None
        self._scale: Tensor | None = None

    def scale(self, i: int) -> Tensor | None:
        """Of sublayer ``i``, [1] or [d]; None: 1."""
        return None

    def _device(self) -> torch.device:
        return self._h.device

    def _write(self, i: int, u: Tensor) -> None:
        self._take_in()
        self._update, self._scale = u, self.scale(i)

    def _take_in(self) -> None:
        if self._update is None:
            return
        update = self._update.to(self._stream_type)
        self._h = self._h + (update if self._scale is None else self._scale * update)
        self._update = None

    def _read(self, i: int, gain: Tensor | None, eps: float) -> Tensor:
        # A compiler fuses the sum and the norm itself.
        by_hand = gain is None or torch.compiler.is_compiling() or in_transform()
        if self._update is None or by_hand:
            self._take_in()
            return self._finish(self._h, gain, eps)
        update = self._update.to(self._compute_type)
        self._h, x, _ = ops.add_norm(self._h, update, self._scale, 1.0, gain, eps)
        self._update = None
        return x

    def _read_out(self, gain: Tensor | None, eps: float) -> Tensor:
        return self._read(len(self._residual.sites), gain, eps)


class SublayerScaled(Additive):
    """rezero (arXiv 2003.04887), layerscale (arXiv 2103.17239): a scale of each sublayer."""

    def scale(self, i: int) -> Tensor:
        return self._parameter(f"{self._residual.sites[i].kind}_residual_scale")


class BlockScaled(Additive):
    """block_layerscale: a scale of each block of sublayers."""

    def scale(self, i: int) -> Tensor:
        return self._parameter("model.block_residual_scale")[i // self._residual.block_length]


class LayerDrop(Additive):
    """layerdrop (arXiv 1909.11556). The draw is torch's, one number for each layer and pass."""

    def __init__(self, residual: ResidualStream, e: Tensor,
                 kept: Sequence[int] | None = None) -> None:
        super().__init__(residual, e)
        options, layers = residual.options, residual.layers
        uniform = options["schedule"] == "uniform"
        self._p = [options["p"] * (1.0 if uniform else (n + 1) / layers) for n in range(layers)]
        self._kept: list[bool] | None = None  # None: a compiler can't know, every layer is computed
        self._keep: Tensor | None = None  # [layers] 1 or 0
        if kept is not None:
            self._kept = [n in kept for n in range(layers)]
        elif residual.training:
            if torch.compiler.is_compiling() or in_transform():
                drawn = torch.rand(layers, device=e.device)
                keep = [drawn[n] >= p for n, p in enumerate(self._p)]
                self._keep = torch.stack(keep).to(self._stream_type)
            else:
                self._kept = [u >= p for u, p in zip(torch.rand(layers).tolist(), self._p)]

    def runs(self, i: int) -> bool:
        return self._kept is None or self._kept[self._residual.sites[i].layer]

    def scale(self, i: int) -> Tensor | None:
        layer = self._residual.sites[i].layer
        scale = None
        if self._keep is not None:
            scale = self._keep[layer].reshape(1)
        elif not self.runs(i):
            scale = self._h.new_zeros(1)
        if not (self._residual.training and self._residual.options["rescale"]):
            return scale
        factor = 1.0 / (1.0 - self._p[layer])
        return self._h.new_full((1,), factor) if scale is None else scale * factor


class Gated(Additive):
    """gated (a news article of June 2026): a learned gate for each token, from trailing means of
    the stream. Positions are the last dimension but one of e."""

    def _write(self, i: int, u: Tensor) -> None:
        self._take_in()
        self._update, self._scale = u, None
        if self._residual.frozen:
            return
        # Additive's scale is of a sublayer; this one is of each token.
        self._update = self._alpha(i) * u.to(self._stream_type)

    def _alpha(self, i: int) -> Tensor:
        gate = f"{self._residual.sites[i].kind}_gate"
        with torch.autocast(self._h.device.type, enabled=False):
            summary = trailing_means(self._h, self._residual.options["windows"])
            hidden = functional.silu(
                functional.linear(summary, self._parameter(f"{gate}.fc1.weight")))
            return torch.sigmoid(functional.linear(
                hidden, self._parameter(f"{gate}.fc2.weight"),
                self._parameter(f"{gate}.fc2.bias")))

    def _read(self, i: int, gain: Tensor | None, eps: float) -> Tensor:
        self._take_in()
        return self._finish(self._h, gain, eps)


def trailing_means(h: Tensor, windows: Sequence[int]) -> Tensor:
    """Means of h [..., T, d] over the trailing windows, over those positions that exist: [..., T,
    windows * d]."""
    length = h.shape[-2]
    place = torch.arange(1, length + 1, dtype=h.dtype, device=h.device).unsqueeze(-1)
    padded = functional.pad(h, (0, 0, max(windows) - 1, 0))
    sums: list[Tensor] = []
    for back in range(max(windows)):
        shifted = padded.narrow(-2, max(windows) - 1 - back, length)
        sums.append(shifted if back == 0 else sums[-1] + shifted)
    return torch.cat([sums[window - 1] / place.clamp(max=window) for window in windows], -1)


class Act(State):
    """act (arXiv 1603.08983, over depth as in arXiv 1807.03819): a token halts once its halting
    probabilities add up to 1 - epsilon. Every token is computed in every layer: which ones have
    halted is a mask, so that nothing depends on values."""

    def __init__(self, residual: ResidualStream, e: Tensor) -> None:
        super().__init__(residual, e)
        self._h = e.to(self._stream_type)
        self._output = torch.zeros_like(self._h)
        self._sum = torch.zeros_like(self._h[..., 0])  # of p_n
        self._ponder = self._sum  # N + R of halted tokens
        self._running = torch.ones_like(self._sum)
        self._depth = self._sum

    def _device(self) -> torch.device:
        return self._h.device

    def _read(self, i: int, gain: Tensor | None, eps: float) -> Tensor:
        return self._finish(self._h, gain, eps)

    def _write(self, i: int, u: Tensor) -> None:
        self._h = torch.addcmul(self._h, self._running.unsqueeze(-1), u.to(self._stream_type))
        if self._residual.ends_layer(i):
            self._halt(self._residual.sites[i].layer)

    def _halt(self, layer: int) -> None:
        running, remainder = self._running, 1.0 - self._sum
        if layer + 1 == self._residual.layers:
            weight, stops = running * remainder, running
        else:
            unit = f"model.layers.{0 if self._residual.options['shared'] else layer}.halt"
            with torch.autocast(self._h.device.type, enabled=False):
                p = torch.sigmoid(self._h @ self._parameter(f"{unit}.weight")[0]
                                  + self._parameter(f"{unit}.bias"))
            full = (self._sum + p).detach() >= 1.0 - self._residual.options["epsilon"]
            weight = running * torch.where(full, remainder, p)
            stops = running * full
            self._sum = self._sum + running * p
        self._output = torch.addcmul(self._output, weight.unsqueeze(-1), self._h)
        self._ponder = self._ponder + stops * (remainder + (layer + 1))
        self._running = running - stops
        self._depth = (self._depth + stops * (layer + 1)).detach()

    def _read_out(self, gain: Tensor | None, eps: float) -> Tensor:
        return self._finish(self._output, gain, eps)

    def auxiliary_loss(self) -> Tensor:
        return self._ponder.mean() * self._residual.options["tau"]

    def depth(self) -> Tensor:
        """[B, T]: the layer, from 1, at which each token halted; after ``read_out``."""
        return self._depth
