"""Schemes whose sublayers read a softmax over sources (docs/method.md, 3 to 5): full_attnres,
block_attnres, haares and wav."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavroute._library import ops
from wavroute.nn.state import State, in_transform, rms_norm

if TYPE_CHECKING:
    from wavroute.nn.residual import ResidualStream

READ_OUT = "model.output_attn_res"


def details_of(residual: ResidualStream) -> list[str]:
    """The detail bases, in the order of the biases."""
    chosen = residual.options.get("details", [])
    return [basis for basis in ("phase", "split") if basis in chosen]


def sign(residual: ResidualStream, basis: str, i: int) -> int:
    """+1 or -1: how the update of sublayer ``i`` enters the detail."""
    if basis == "phase":
        return -1 if residual.sites[i].role == "mlp" else 1
    length = residual.block_length
    place, own = i % length, min(length, len(residual.sites) - i // length * length)
    return 1 if 2 * (place + 1) <= own else -1


class Routed(State):
    """Phase 1 for all routers of a block at once, phase 2 and the norm in one pass per read,
    through our operators (include/wavroute/functional.h)."""

    def __init__(self, residual: ResidualStream, e: Tensor) -> None:
        super().__init__(residual, e)
        self._details = details_of(residual)
        self._matching = residual.options.get("matching_epsilon", 1e-12)
        partial = residual.options.get("partial_details", True)
        self._forms = list(range(1 + len(self._details)))
        self._running_forms = self._forms if partial else [0]
        row = e.to(self._stream_type).reshape(-1, residual.width)
        ratio, inverse = ops.source_scalars(row.detach(), None, residual.eps, self._matching)
        self._rows = [row]
        self._ratio, self._inverse = ratio.unsqueeze(0), inverse.unsqueeze(0)  # [rows, tokens]
        self._parts: list[Tensor | None] = self._no_parts()
        self._update: Tensor | None = None  # written, and not read yet
        self._part = 0
        self._mixtures: list[tuple[Tensor, Tensor, Tensor]] = []  # of the block's routers
        self._queries: tuple[Tensor, ...] = ()
        self._biases: tuple[Tensor, ...] = ()  # [forms] of the running sources

    def _no_parts(self) -> list[Tensor | None]:
        return [None] * 2 ** len(self._details)

    def _device(self) -> torch.device:
        return self._rows[0].device

    # ---- reads ----------------------------------------------------------------------------------

    def _read(self, i: int, gain: Tensor | None, eps: float) -> Tensor:
        length = self._residual.block_length
        if i % length == 0:
            self._end_block()
            if not self._mixtures:
                last = min(i + length, len(self._residual.sites))
                self._mix([site.router for site in self._residual.sites[max(i, 1):last]])
        if i == 0:
            return self._finish(self._rows[0].view(self._shape), gain, eps)
        router = i % length - (1 if i < length else 0)
        forms = self._running_forms if i % length > 0 else []
        return self._routed(router, forms, gain, eps)

    def _read_out(self, gain: Tensor | None, eps: float) -> Tensor:
        self._end_block()
        if not self._mixtures:
            self._mix([READ_OUT])
        return self._routed(0, [], gain, eps)

    def _mix(self, routers: list[str]) -> None:
        """Phase 1."""
        if not routers:  # the first block of one sublayer
            return
        gains = torch.stack([self._parameter(f"{name}_norm.weight") for name in routers])
        query = torch.cat([self._parameter(f"{name}_proj.weight") for name in routers]) * gains
        zero = query.new_zeros(len(routers), 1)
        if self._details:
            beta = torch.stack([self._parameter(f"{name}_bias") for name in routers])
            of_block = torch.cat([zero, beta], 1)
        else:
            of_block = zero
        blocks = (len(self._rows) - 1) // len(self._forms)
        bias = torch.cat([zero, of_block.repeat(1, blocks)], 1)
        mixed, peak, mass, _ = ops.route_mix(self._rows, self._ratio, self._inverse, query, bias)
        self._mixtures = list(zip(mixed.unbind(), peak.unbind(), mass.unbind()))
        self._queries = query.unbind()
        self._biases = of_block[:, :len(self._running_forms)].unbind()

    def _routed(self, router: int, forms: list[int], gain: Tensor | None, eps: float) -> Tensor:
        """Phase 2."""
        key_eps = self._residual.eps
        fused = gain is not None and eps == key_eps
        compute = self._compute_type if fused else self._stream_type
        update = None if self._update is None else self._update.to(compute)
        query = self._queries[router]
        bias = self._biases[router] if forms else query.new_zeros(0)
        part, x, *_ = ops.route_read(
            update, self._part, self._parts if forms else [], forms, *self._mixtures[router],
            query, bias, gain if fused else None, key_eps, self._matching,
            compute if update is None else None)
        if update is not None:
            self._parts[self._part] = part
            self._update = None
        x = x.view(self._shape)
        return x if fused else self._finish(x, gain, eps)

    # ---- writes ---------------------------------------------------------------------------------

    def _write(self, i: int, u: Tensor) -> None:
        if self._update is not None:
            raise ValueError(f"expected read({i}) before write({i})")
        self._update = u.reshape(-1, self._residual.width)
        signs = [sign(self._residual, basis, i) for basis in self._details]
        self._part = sum(1 << place for place, s in enumerate(signs) if s < 0)

    def _end_block(self) -> None:
        """The running sums become finished sources."""
        if self._update is None:
            return
        update = self._update.to(self._compute_type)
        rows, ratio, inverse = ops.route_finish(update, self._part, self._parts, self._forms,
                                                self._residual.eps, self._matching)
        self._rows = [*self._rows, *rows]
        self._ratio = torch.cat([self._ratio, ratio])
        self._inverse = torch.cat([self._inverse, inverse])
        self._parts, self._update, self._mixtures = self._no_parts(), None, []


class PlainRouted(State):
    """The same in stock operators, one softmax a read: for the transforms of torch.func, which have
    no rule for our operators."""

    def __init__(self, residual: ResidualStream, e: Tensor) -> None:
        super().__init__(residual, e)
        self._details = details_of(residual)
        self._matching = residual.options.get("matching_epsilon", 1e-12)
        self._finished = [(e.to(self._stream_type), 0)]  # value, and its basis: 0, or 1 + place
        self._sums: list[Tensor] = []  # S and the details of the unfinished block

    def _device(self) -> torch.device:
        return self._finished[0][0].device

    def _sources(self, partial: bool) -> list[tuple[Tensor, int]]:
        if not self._sums:
            return []
        eps = self._matching
        power = [s.square().mean(-1, keepdim=True) + eps for s in self._sums]
        matched = [(power[0] / p).sqrt().detach() * s for p, s in zip(power[1:], self._sums[1:])]
        values = [self._sums[0], *(matched if partial else [])]
        return list(zip(values, range(len(values))))

    def _route(self, router: str, sources: list[tuple[Tensor, int]]) -> Tensor:
        values = torch.stack([value for value, _ in sources])
        query = self._parameter(f"{router}_proj.weight")[0] * self._parameter(
            f"{router}_norm.weight")
        inverse = torch.rsqrt(values.square().mean(-1) + self._residual.eps)
        logits = (values * query).sum(-1) * inverse
        if self._details:
            bias = self._parameter(f"{router}_bias")
            table = torch.cat([bias.new_zeros(1), bias])
            places = torch.stack([table[basis] for _, basis in sources])
            logits = logits + places.view(-1, *[1] * (logits.dim() - 1))
        return (logits.softmax(0).unsqueeze(-1) * values).sum(0)

    def _read(self, i: int, gain: Tensor | None, eps: float) -> Tensor:
        if i == 0:
            h = self._finished[0][0]
        else:
            partial = self._residual.options.get("partial_details", True)
            h = self._route(self._residual.sites[i].router, self._finished + self._sources(partial))
        return h.to(self._type) if gain is None else rms_norm(h, gain, eps).to(self._compute_type)

    def _write(self, i: int, u: Tensor) -> None:
        update = u.to(self._stream_type)
        terms = [update] + [sign(self._residual, basis, i) * update for basis in self._details]
        self._sums = [s + t for s, t in zip(self._sums, terms)] if self._sums else terms
        length = self._residual.block_length
        if (i + 1) % length == 0 or i + 1 == len(self._residual.sites):
            self._finished = self._finished + self._sources(partial=True)
            self._sums = []

    def _read_out(self, gain: Tensor | None, eps: float) -> Tensor:
        h = self._route(READ_OUT, self._finished)
        return h.to(self._type) if gain is None else rms_norm(h, gain, eps).to(self._compute_type)


def routed(residual: ResidualStream, e: Tensor) -> State:
    """The state of a routed scheme, as what runs can take it."""
    return PlainRouted(residual, e) if in_transform() else Routed(residual, e)
