"""An encoder-decoder that reverses sequences, with prenorm and with wav: cross-attention is a role
of its own in the decoder's stream.

    python examples/reversal.py
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F
from wavroute.nn import ResidualStream

WIDTH, HEADS, LAYERS, VOCAB, LENGTH = 48, 4, 2, 10, 6
START = VOCAB  # the token before the first


class Sublayers(nn.Module):
    """Attention, cross-attention and MLP sublayers around a stream."""

    def __init__(self, scheme, roles):
        super().__init__()
        self.residual = ResidualStream(scheme, roles=roles, width=WIDTH)
        self.sublayers = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
            if role == "mlp" else nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
            for role in roles)
        self.gains = nn.ParameterList(torch.ones(WIDTH) for _ in range(len(roles) + 1))

    def forward(self, e, memory=None):  # [B, T, d] -> [B, T, d]; memory: of the encoder
        # The decoder's own positions see no later one.
        causal = nn.Transformer.generate_square_subsequent_mask(e.shape[1])
        mask = None if memory is None else causal
        s = self.residual.begin(e)
        for i, (site, sublayer) in enumerate(zip(self.residual.sites, self.sublayers)):
            x = s.read(i, norm=self.gains[i])
            if site.role == "mlp":
                u = sublayer(x)
            elif site.role == "cross_attention":
                u = sublayer(x, memory, memory, need_weights=False)[0]
            else:
                u = sublayer(x, x, x, attn_mask=mask, need_weights=False)[0]
            s.write(i, u)
        return s.read_out(norm=self.gains[-1])


class EncoderDecoder(nn.Module):
    def __init__(self, scheme):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCAB + 1, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.encoder = Sublayers(scheme, ["attention", "mlp"] * LAYERS)
        self.decoder = Sublayers(scheme, ["attention", "cross_attention", "mlp"] * LAYERS)
        self.head = nn.Linear(WIDTH, VOCAB)

    def embedded(self, ids):
        return self.tokens(ids) + self.positions.weight

    def forward(self, source, shifted):  # [B, T], [B, T] -> [B, T, V]
        return self.head(self.decoder(self.embedded(shifted), self.encoder(self.embedded(source))))


def batch(size):
    source = torch.randint(VOCAB, (size, LENGTH))
    target = source.flip(1)
    return source, torch.cat([torch.full((size, 1), START), target[:, :-1]], 1), target


def accuracy(scheme, steps):
    """The share of tokens that are right, each after the right ones before it."""
    torch.manual_seed(1)
    model = EncoderDecoder(scheme)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        source, shifted, target = batch(64)
        F.cross_entropy(model(source, shifted).flatten(0, 1), target.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    source, shifted, target = batch(256)
    with torch.no_grad():
        return (model(source, shifted).argmax(-1) == target).float().mean().item()


def main(steps=100):
    found = {scheme: accuracy(scheme, steps) for scheme in ("prenorm", "wav")}
    print(", ".join(f"{scheme}: {share:.1%} right" for scheme, share in found.items()))
    assert min(found.values()) > 0.5, "ten tokens: chance is 10 %"
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    main(parser.parse_args().steps)
