"""Results of the product's own model, written by wavroute_dump."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from paths import call

SMALL = {"layers": 4, "width": 24, "heads": 2, "kv_heads": 2, "hidden": 40, "context": 12,
         "vocab": 19, "batch": 2, "tie_embeddings": False, "seed": 3, "training": True,
         "step": 50, "steps": 100, "recompute": "none", "precision": "fp64"}


@dataclass
class Dump:
    config: dict  # config.json
    tensors: dict[str, Tensor]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, without it."""
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items()
                if name.startswith(prefix)}


def request(spec: dict, out: Path):
    """Runs wavroute_dump on SMALL with the changes of `spec`."""
    return call("wavroute_dump", "--out", out, "--json", json.dumps(SMALL | spec))


def dump(spec: dict, out: Path) -> Dump:
    done = request(spec, out)
    assert done.returncode == 0, done.stderr
    with safe_open(out, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return Dump(json.loads(file.metadata()["config"]), tensors)
