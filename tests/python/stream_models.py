"""What the tests of wavroute.nn share: a stream with tiny sublayers of its own, and its values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, BATCH, POSITIONS = 8, 2, 5

#: A stream of each scheme with every kind of block, window and layer in it.
STREAMS: dict[str, dict] = {
    "prenorm": {}, "rezero": {}, "layerscale": {}, "block_layerscale": {"blocks": 2},
    "layerdrop": {}, "gated": {"windows": [1, 3]}, "act": {"tau": 0.5}, "denseformer": {},
    "mhc_lite": {"streams": 2}, "full_attnres": {}, "block_attnres": {"blocks": 2},
    "haares": {"blocks": 2}, "wav": {"blocks": 2},
}


class Net(nn.Module):
    """Sublayers tanh(x W) around a stream, [B, T, d] -> a scalar."""

    def __init__(self, scheme: str, *, normed: bool = True, checkpointed: bool = False,
                 **options) -> None:
        super().__init__()
        from wavroute.nn import ResidualStream

        if "roles" not in options:
            options.setdefault("layers", 4)
        self.residual = ResidualStream(scheme, width=WIDTH, seed=1, **STREAMS[scheme] | options)
        count = len(self.residual.sites)
        self.weights = nn.ParameterList(torch.empty(WIDTH, WIDTH) for _ in range(count))
        self.gains = nn.ParameterList(torch.empty(WIDTH) for _ in range(count + 1))
        self.normed, self.checkpointed = normed, checkpointed
        scatter(self)

    def sublayer(self, i: int, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weights[i])

    def read(self, s, i: int | None) -> Tensor:
        """A read with the norm in it, or after it."""
        gain = self.gains[-1 if i is None else i]
        read = s.read_out if i is None else lambda **norm: s.read(i, **norm)
        if self.normed:
            return read(norm=gain)
        return nn.functional.rms_norm(read(), gain.shape, gain, self.residual.eps)

    def forward(self, e: Tensor) -> Tensor:
        s = self.residual.begin(e)
        for i in range(len(self.weights)):
            x = self.read(s, i)
            if self.checkpointed:
                u = torch.utils.checkpoint.checkpoint(self.sublayer, i, x, use_reentrant=False)
            else:
                u = self.sublayer(i, x)
            s.write(i, u)
        x = self.read(s, None)
        towards = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)
        return (x * towards).sum() + s.auxiliary_loss()


def scatter(module: nn.Module, seed: int = 3) -> None:
    """Values at which every term of a scheme's formula has an effect: no zero query, no unit
    gain."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.startswith("weights"):
                parameter.copy_(noise / WIDTH**0.5)
            elif name.startswith("gains"):
                parameter.copy_(1 + 0.3 * noise)
            else:
                parameter.copy_(parameter.clamp(-1, 1) + 0.3 * noise)


def embedding(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(BATCH, POSITIONS, WIDTH, generator=generator).to(dtype).requires_grad_()


def gradients(net: nn.Module, e: Tensor, call=None) -> tuple[Tensor, dict[str, Tensor]]:
    """(the value, the gradients by name; those of zero where a parameter took no part)."""
    net.zero_grad()
    e.grad = None
    value = (net if call is None else call)(e)
    value.backward()
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
             for name, p in net.named_parameters()}
    return value.detach(), found | {"e": e.grad.clone()}


def assert_same(one: tuple, other: tuple, tolerance: float) -> None:
    """Of gradients(): relative to the larger of each tensor's size and 1, as those that cancel lose
    more than their own size tells."""
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=tolerance)
    assert one[1].keys() == other[1].keys()
    for name, expected in other[1].items():
        apart = (one[1][name].double() - expected.double()).norm()
        assert apart <= tolerance * max(expected.norm().item(), 1.0), name
