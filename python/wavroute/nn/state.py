"""The state of a residual stream during one pass over a batch: what all schemes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavroute._library import ops

if TYPE_CHECKING:
    from wavroute.nn.residual import ResidualStream


def in_transform() -> bool:
    """Whether a transform of torch.func is running, under which our operators can't."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None


def rms_norm(h: Tensor, gain: Tensor, eps: float) -> Tensor:
    """gain * h / rms(h), in the type of h."""
    return gain * (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps))


class State:
    """One pass. Calls come in the order ``read(0)``, ``write(0)``, ``read(1)``, ...,
    ``read_out()``, :meth:`auxiliary_loss`.

    The stream is kept in float (in double where e is double). A read without a norm has the type of
    e; one with a norm has the type that a sublayer computes in: autocast's, where that is on, else
    that of e.

    A state belongs to one pass: where activations are computed again (``torch.utils.checkpoint``),
    wrap the sublayers, not the reads and writes.
    """

    def __init__(self, residual: ResidualStream, e: Tensor) -> None:
        if e.dim() < 2 or e.shape[-1] != residual.width:
            raise ValueError(f"expected an embedding [B, T, {residual.width}], "
                             f"given {list(e.shape)}")
        self._residual = residual
        self._shape = e.shape
        self._type = e.dtype
        self._stream_type = torch.float64 if e.dtype == torch.float64 else torch.float32
        device = e.device.type
        autocast = torch.is_autocast_enabled(device)
        self._compute_type = torch.get_autocast_dtype(device) if autocast else e.dtype
        self._at = 0  # the sublayer whose read or write is next

    def read(self, i: int, *, norm: Tensor | None = None, eps: float | None = None) -> Tensor:
        """What sublayer ``i`` (from 0) reads.

        norm: the gain [d] of an RMSNorm, which is then part of the read: the result is
        norm * h / sqrt(mean(h^2) + eps). eps: the stream's own by default.

        Returns: [B, T, d]. Errors: ValueError out of order, or where ``norm`` isn't [d].
        """
        self._expect("read", i)
        return self._read(i, self._gain(norm), self._residual.eps if eps is None else eps)

    def write(self, i: int, u: Tensor) -> None:
        """Adds the update ``u`` [B, T, d] of sublayer ``i``. Errors: ValueError out of order, or
        for another shape."""
        self._expect("write", i)
        if u.shape != self._shape:
            raise ValueError(f"expected an update {list(self._shape)}, given {list(u.shape)}, "
                             f"in write({i})")
        self._write(i, u)
        self._at = i + 1

    def read_out(self, *, norm: Tensor | None = None, eps: float | None = None) -> Tensor:
        """What the model's last norm reads; with ``norm`` what it gives. As :meth:`read`."""
        self._expect("read_out", len(self._residual.sites))
        return self._read_out(self._gain(norm), self._residual.eps if eps is None else eps)

    def auxiliary_loss(self) -> Tensor:
        """The scheme's own term of the loss, a scalar, after ``read_out``; 0 where it has none."""
        return torch.zeros((), dtype=self._stream_type, device=self._device())

    def runs(self, i: int) -> bool:
        """False: this pass leaves out sublayer ``i`` (layerdrop in training), whose read and write
        may then be left out too; nothing is added in either case."""
        return True

    # ---- of a scheme ----------------------------------------------------------------------------

    def _device(self) -> torch.device:
        raise NotImplementedError

    def _read(self, i: int, gain: Tensor | None, eps: float) -> Tensor:
        raise NotImplementedError

    def _write(self, i: int, u: Tensor) -> None:
        raise NotImplementedError

    def _read_out(self, gain: Tensor | None, eps: float) -> Tensor:
        raise NotImplementedError

    # ---- shared ---------------------------------------------------------------------------------

    def _expect(self, what: str, i: int) -> None:
        end = len(self._residual.sites)
        while self._at < i and not self.runs(self._at):
            self._at += 1
        if i == self._at:
            return
        given = "read_out()" if what == "read_out" else f"{what}({i})"
        if self._at == end:
            expected = "read_out()"
        else:
            expected = f"read({self._at}) or write({self._at})"
        raise ValueError(f"expected {expected}, given {given}: a stream of {end} sublayers is read "
                         "and written in order, once in a pass")

    def _gain(self, norm: Tensor | None) -> Tensor | None:
        if norm is None:
            return None
        if norm.shape != (self._residual.width,):
            raise ValueError(f"expected a norm's gain [{self._residual.width}], "
                             f"given {list(norm.shape)}")
        return norm.to(self._stream_type)

    def _parameter(self, name: str) -> Tensor:
        return self._residual.value(name).to(self._stream_type)

    def _finish(self, h: Tensor, gain: Tensor | None, eps: float) -> Tensor:
        """A read of the stream's value h."""
        if gain is None:
            return h.to(self._type)
        if torch.compiler.is_compiling() or in_transform():
            return rms_norm(h, gain, eps).to(self._compute_type)
        return ops.add_norm(h, None, None, 1.0, gain, eps, self._compute_type)[1]
