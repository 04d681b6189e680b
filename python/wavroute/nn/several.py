"""Schemes that keep several layers or several streams (docs/method.md)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wavroute.nn.additive import Additive
from wavroute.nn.state import State, rms_norm

if TYPE_CHECKING:
    from wavroute.nn.residual import ResidualStream


class DenseFormer(Additive):
    """denseformer (arXiv 2402.02622): after layer i the stream is a learned average of the outputs
    X_j of the layers so far; X_0 = e."""

    def __init__(self, residual: ResidualStream, e: Tensor) -> None:
        super().__init__(residual, e)
        self._outputs = [self._h]

    def _write(self, i: int, u: Tensor) -> None:
        super()._write(i, u)
        if not self._residual.ends_layer(i):
            return
        self._take_in()
        self._outputs.append(self._h)
        options, number = self._residual.options, self._residual.sites[i].layer + 1
        if number % options["period"] != 0:
            return
        weights = self._parameter(f"model.layers.{number - 1}.depth_weights")
        taken = self._outputs[number % options["dilation"]::options["dilation"]]
        h = weights[0] * taken[0]
        for place in range(1, len(taken)):
            h = torch.addcmul(h, weights[place], taken[place])
        self._h = h


def permutations(count: int) -> Tensor:
    """[n!, n n] 0 or 1: row k is the matrix P_k, whose row r has its 1 where permutation k takes
    stream r from. Lexicographic."""
    taken = torch.tensor(list(itertools.permutations(range(count))), device="cpu")
    return functional.one_hot(taken, count).flatten(1).to(torch.float32)


class MhcLite(State):
    """mhc_lite (arXiv 2601.05732): n streams, mixed by a weighted mean of all permutations."""

    def __init__(self, residual: ResidualStream, e: Tensor) -> None:
        super().__init__(residual, e)
        count = residual.options["streams"]
        streams = e.to(self._stream_type).unsqueeze(-2)
        self._x = streams.expand(*e.shape[:-1], count, e.shape[-1])  # [..., n, d]
        self._written: Tensor | None = None  # what the write at this site takes
        self._carried: Tensor | None = None
        self._permutations = residual.model.permutations.to(self._stream_type)

    def _device(self) -> torch.device:
        return self._x.device

    def _mixes(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        """H_pre [..., 1, n], H_post [..., n, 1] and H_res [..., n, n]."""
        count, name = self._residual.options["streams"], f"{self._residual.sites[i].kind}_hc"
        normed = rms_norm(self._x.flatten(-2), self._parameter(f"{name}_norm.weight"),
                          self._residual.eps)

        def logits(part: str) -> Tensor:
            product = functional.linear(normed, self._parameter(f"{name}_{part}.weight"))
            return torch.addcmul(self._parameter(f"{name}_{part}.bias"),
                                 self._parameter(f"{name}_{part}_scale"), product)

        read = torch.sigmoid(logits("pre")).unsqueeze(-2)
        written = 2.0 * torch.sigmoid(logits("post")).unsqueeze(-1)
        shares = logits("res").softmax(-1)
        return read, written, (shares @ self._permutations).unflatten(-1, (count, count))

    def _read(self, i: int, gain: Tensor | None, eps: float) -> Tensor:
        with torch.autocast(self._x.device.type, enabled=False):
            read, self._written, carry = self._mixes(i)
            h = (read @ self._x).squeeze(-2)
            self._carried = carry @ self._x
        return self._finish(h, gain, eps)

    def _write(self, i: int, u: Tensor) -> None:
        if self._carried is None:
            raise ValueError(f"expected read({i}), which says how streams are mixed, before "
                             f"write({i})")
        update = u.to(self._stream_type).unsqueeze(-2)
        self._x = torch.addcmul(self._carried, self._written, update)
        self._carried = self._written = None

    def _read_out(self, gain: Tensor | None, eps: float) -> Tensor:
        return self._finish(self._x.sum(-2), gain, eps)
