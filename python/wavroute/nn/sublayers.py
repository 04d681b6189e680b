"""Which sublayers a stream has: their roles, layers, blocks and names in a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: role -> what its parameters are called: of a sublayer's own scale or gate, and of its router.
KINDS = {"attention": "self_attn", "mlp": "mlp", "cross_attention": "cross_attn"}
ROUTERS = {"attention": "self_attention_res", "mlp": "mlp_res",
           "cross_attention": "cross_attention_res"}

# What C++ declares for sublayer 2 i or 2 i + 1: a layer's number, a role's name, and the rest.
_OF_SUBLAYER = re.compile(r"model\.layers\.(\d+)\.(self_attn|self_attention_res|mlp_res|mlp)(_.*)")


@dataclass(frozen=True)
class Site:
    """A sublayer: its layer, from 0, and its role."""

    layer: int
    role: str

    @property
    def kind(self) -> str:
        """What the names of its scale, gate or mixer begin with."""
        return f"model.layers.{self.layer}.{KINDS[self.role]}"

    @property
    def router(self) -> str:
        """What the names of its router begin with."""
        return f"model.layers.{self.layer}.{ROUTERS[self.role]}"


def sites_of(roles: Sequence[str]) -> list[Site]:
    """The sublayers with these roles. A layer ends where the next role is one that it has."""
    sites: list[Site] = []
    seen: set[str] = set()
    layer = 0
    for role in roles:
        if role not in KINDS:
            raise ValueError(f"expected a role of {', '.join(KINDS)}, given '{role}', "
                             f"as roles[{len(sites)}]")
        if role in seen:
            layer += 1
            seen.clear()
        seen.add(role)
        sites.append(Site(layer, role))
    return sites


def own_name(name: str, sites: Sequence[Site]) -> str | None:
    """The name here of a parameter that C++ declares for a stream of attention and MLP pairs.
    None: of a sublayer that there isn't."""
    found = _OF_SUBLAYER.fullmatch(name)
    if found is None:
        return name
    layer, kind, rest = int(found[1]), found[2], found[3]
    index = 2 * layer + (1 if kind.startswith("mlp") else 0)
    if index >= len(sites):
        return None
    site = sites[index]
    return (site.router if kind.endswith("_res") else site.kind) + rest
