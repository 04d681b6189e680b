"""A model of pictures and words, with prenorm and with wav: "which colour is at place 4?" Both
modalities share one stream; each has MLPs of its own.

    python examples/two_modalities.py
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F
from wavroute.nn import ResidualStream

WIDTH, HEADS, LAYERS, PLACES, COLOURS = 48, 4, 3, 9, 4


def mlp():
    return nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))


class Answerer(nn.Module):
    def __init__(self, scheme):
        super().__init__()
        self.picture, self.words = nn.Linear(3, WIDTH), nn.Embedding(PLACES, WIDTH)
        self.places = nn.Parameter(0.5 * torch.randn(PLACES, WIDTH))
        self.attention = nn.ModuleList(
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in range(LAYERS))
        self.of_pictures = nn.ModuleList(mlp() for _ in range(LAYERS))
        self.of_words = nn.ModuleList(mlp() for _ in range(LAYERS))
        self.gains = nn.ParameterList(torch.ones(WIDTH) for _ in range(2 * LAYERS + 1))
        self.head = nn.Linear(WIDTH, COLOURS)
        self.residual = ResidualStream(scheme, layers=LAYERS, width=WIDTH)

    def forward(self, pictures, question):  # [B, places, 3], [B] -> [B, colours]
        e = torch.cat([self.picture(pictures) + self.places, self.words(question[:, None])], 1)
        s = self.residual.begin(e)
        for i in range(LAYERS):
            x = s.read(2 * i, norm=self.gains[2 * i])
            s.write(2 * i, self.attention[i](x, x, x, need_weights=False)[0])
            x = s.read(2 * i + 1, norm=self.gains[2 * i + 1])
            both = self.of_pictures[i](x[:, :PLACES]), self.of_words[i](x[:, PLACES:])
            s.write(2 * i + 1, torch.cat(both, 1))
        return self.head(s.read_out(norm=self.gains[-1])[:, -1])


def batch(size, palette):
    """Pictures with a little noise, questions, answers."""
    colours, question = torch.randint(COLOURS, (size, PLACES)), torch.randint(PLACES, (size,))
    pictures = palette[colours] + 0.1 * torch.randn(size, PLACES, 3)
    return pictures, question, colours[torch.arange(size), question]


def accuracy(scheme, steps):
    torch.manual_seed(1)
    palette = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    model = Answerer(scheme)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        pictures, question, answer = batch(64, palette)
        F.cross_entropy(model(pictures, question), answer).backward()
        optimizer.step()
        optimizer.zero_grad()
    pictures, question, answer = batch(512, palette)
    with torch.no_grad():
        return (model(pictures, question).argmax(-1) == answer).float().mean().item()


def main(steps=100):
    found = {scheme: accuracy(scheme, steps) for scheme in ("prenorm", "wav")}
    print(", ".join(f"{scheme}: {share:.1%} right" for scheme, share in found.items()))
    assert min(found.values()) > 0.5, "four colours: chance is 25 %"
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    main(parser.parse_args().steps)
