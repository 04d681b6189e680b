"""A vision transformer on scikit-learn's handwritten digits, with prenorm and with wav.

    python examples/vision.py
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from wavroute.nn import ResidualStream

WIDTH, HEADS, LAYERS, PATCH = 32, 4, 4, 2


class VisionTransformer(nn.Module):
    def __init__(self, scheme):
        super().__init__()
        self.patches = nn.Linear(PATCH * PATCH, WIDTH)
        self.positions = nn.Parameter(0.1 * torch.randn((8 // PATCH) ** 2, WIDTH))
        self.attention = nn.ModuleList(
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in range(LAYERS))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
            for _ in range(LAYERS))
        self.gains = nn.ParameterList(torch.ones(WIDTH) for _ in range(2 * LAYERS + 1))
        self.head = nn.Linear(WIDTH, 10)
        self.residual = ResidualStream(scheme, layers=LAYERS, width=WIDTH)

    def forward(self, images):  # [B, 8, 8] -> [B, 10]
        patches = images.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).flatten(3).flatten(1, 2)
        s = self.residual.begin(self.patches(patches) + self.positions)
        for i in range(LAYERS):
            x = s.read(2 * i, norm=self.gains[2 * i])
            s.write(2 * i, self.attention[i](x, x, x, need_weights=False)[0])
            s.write(2 * i + 1, self.mlp[i](s.read(2 * i + 1, norm=self.gains[2 * i + 1])))
        return self.head(s.read_out(norm=self.gains[-1]).mean(1))


def accuracy(scheme, steps):
    """Of the last 297 images, after training on the others."""
    torch.manual_seed(1)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target, dtype=torch.long)
    model = VisionTransformer(scheme)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(1500, (64,))
        F.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        right = model(images[1500:]).argmax(-1) == labels[1500:]
    return right.float().mean().item()


def main(steps=300):
    found = {scheme: accuracy(scheme, steps) for scheme in ("prenorm", "wav")}
    print(", ".join(f"{scheme}: {share:.1%} right" for scheme, share in found.items()))
    assert min(found.values()) > 0.6, "ten classes: chance is 10 %"
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    main(parser.parse_args().steps)
