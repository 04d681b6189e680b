"""What a decoder learnt to read, as tensors: the numbers of ``wavroute inspect``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wavroute._library import ops
from wavroute.nn.decoder import Decoder


@dataclass(frozen=True)
class Inspection:
    """Means over the scored tokens (docs/inspect.md). M sublayers; reader M is the read-out."""

    depth_mixing: Tensor  # [M + 1, M + 1] float64: row l, column e, u_1 ...; 0 above the diagonal
    loss: float  # nats per token
    loss_if_last: Tensor  # [M + 1] nats, of a model that ended after this sublayer
    weights: list[Tensor]  # [sources] of each reader's router; empty: it has none
    sources: list[list[str]]  # their names: "e", "S1", "P1", "Q1", "u3"
    entropy: Tensor  # [M + 1] nats, of the routers' weights; nan: no router
    details: Tensor  # [M + 1] the details' share of the weight; nan: no router
    age: Tensor  # [M + 1] sublayers since what is read was written
    gate: Tensor  # [M + 1] mean gate; nan: no gate
    stream: Tensor  # [M + 1] root mean square of what is read
    update: Tensor  # [M] of what is written
    document: dict[str, Any]  # all of it, as --json prints it


def inspect(model: Decoder, batch: Tensor) -> Inspection:
    """One forward and backward of the model on ``batch`` [B, T + 1] int64: of each row the first T
    ids are read, and each predicts the next.

    Errors: ValueError for another shape, or ids beyond the vocabulary; TypeError for a model that
    is no Decoder.
    """
    if not isinstance(model, Decoder):
        raise TypeError(f"expected a wavroute.nn.Decoder, given {type(model).__name__}")
    if batch.dim() != 2 or batch.shape[1] < 2:
        raise ValueError(f"expected ids [B, T + 1], given {list(batch.shape)}")
    config = dict(model.config)
    config["residual"] = dict(config["residual"])
    if "frozen" in config["residual"]:
        config["residual"]["frozen"] = model.residual.frozen
    state = {name: value.detach().float().cpu() for name, value in model.named_parameters()}
    tokenizer = "" if model.tokenizer is None else model.tokenizer.path
    document = json.loads(ops.inspect_decoder(
        json.dumps(config), json.dumps(list(state)), list(state.values()), batch.cpu(), tokenizer))
    return _inspection(document)


def _inspection(document: dict[str, Any]) -> Inspection:
    readers = document["sublayers"]

    def column(values: list[float | None]) -> Tensor:
        return torch.tensor([torch.nan if value is None else value for value in values],
                            dtype=torch.float64)

    return Inspection(
        depth_mixing=torch.stack([column(row).nan_to_num() for row in document["depth_mixing"]]),
        loss=document["loss"],
        loss_if_last=column([reader["loss_if_last"] for reader in readers]),
        weights=[column(reader["weights"]) for reader in readers],
        sources=[reader["sources"] for reader in readers],
        entropy=column([reader["entropy"] for reader in readers]),
        details=column([reader["details"] for reader in readers]),
        age=column([reader["age"] for reader in readers]),
        gate=column([(reader["gate"] or {}).get("mean") for reader in readers]),
        stream=column([reader["norms"]["stream"] for reader in readers]),
        update=column([reader["norms"]["update"] for reader in readers[:-1]]),
        document=document)
