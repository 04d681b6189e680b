"""gpt2.py with the residual stream of wav: `diff examples/gpt2.py examples/gpt2_wav.py`.

    python examples/gpt2_wav.py
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from wavroute.nn import ResidualStream

WIDTH, HEADS, LAYERS, CONTEXT = 64, 4, 6, 64


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):  # [B, T, d]
        heads = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        wide = 4 * WIDTH
        self.mlp = nn.Sequential(nn.Linear(WIDTH, wide), nn.GELU(), nn.Linear(wide, WIDTH))


class GPT2(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocab, bias=False)
        self.residual = ResidualStream("wav", layers=LAYERS, width=WIDTH)

    def forward(self, ids):  # [B, T] -> [B, T, V]
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        s = self.residual.begin(x)
        for i, block in enumerate(self.blocks):
            s.write(2 * i, block.attention(block.norm1(s.read(2 * i))))
            s.write(2 * i + 1, block.mlp(block.norm2(s.read(2 * i + 1))))
        return self.head(self.norm(s.read_out()))


def main(steps=150):
    """The mean loss of the last ten steps, nats per character."""
    torch.manual_seed(1)
    text = Path(__file__).with_name("gpt2.py").read_text()
    letters = sorted(set(text))
    data = torch.tensor([letters.index(letter) for letter in text])
    model = GPT2(len(letters))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(steps):
        starts = torch.randint(len(data) - CONTEXT - 1, (16,))
        rows = torch.stack([data[start : start + CONTEXT + 1] for start in starts])
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    frequencies = data.bincount() / len(data)
    alone = -(frequencies * frequencies.log()).sum().item()  # of a model that sees no context
    result = sum(losses[-10:]) / 10
    print(f"loss {result:.3f}, without context {alone:.3f}")
    assert result < alone - 0.3, "it learnt nothing from the context"
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=150)
    main(parser.parse_args().steps)
