"""The registry of residual schemes, as the shared library knows it."""

from __future__ import annotations

import difflib
import functools
import json
from typing import Any

from torch import Tensor

from wavroute._library import ops


@functools.cache
def _catalog() -> dict[str, dict[str, Any]]:
    return {scheme["name"]: scheme for scheme in json.loads(ops.scheme_catalog())}


def schemes() -> list[dict[str, Any]]:
    """Every residual scheme: ``name``, ``summary`` (with its source) and ``options``, each with
    ``name``, ``type``, ``default``, ``doc``, ``choices`` and whether it takes ``"auto"``."""
    return [dict(scheme) for scheme in _catalog().values()]


def parameters(scheme: str, options: dict[str, Any], *, layers: int, width: int, eps: float,
               seed: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What C++ declares for a scheme of this size: a description (every option, resolved; the
    length of its blocks) and the initial values under their checkpoint names.

    Errors: ValueError for a scheme, an option or a value that there isn't.
    """
    known = _catalog().get(scheme)
    if known is not None:
        names = [option["name"] for option in known["options"]]
        for name in options:
            if name not in names:
                raise ValueError(_unknown_option(scheme, name, names))
    try:
        text = json.dumps({"scheme": scheme} | options)
    except TypeError as error:
        raise ValueError(f"expected options of numbers, words and lists of them, given: {error}"
                         ) from None
    described, values = ops.scheme_parameters(text, layers, width, eps, seed)
    description = json.loads(described)
    return description, dict(zip(description["names"], values))


def _unknown_option(scheme: str, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    hint = f"did you mean '{near[0]}'?" if near else "this scheme has none"
    return f"expected an option of residual scheme {scheme}, given '{name}' ({hint})"
