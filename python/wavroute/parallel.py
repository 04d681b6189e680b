"""A :class:`wavroute.nn.Decoder` on many devices: sharded (FSDP2), split by heads and hidden units
(tensor parallel), or by layers (pipeline stages).

Every function works on the process group or device mesh that it is given, Gloo on CPUs as NCCL on
GPUs, and gives the losses and gradients of one process but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.nn import functional

from wavroute.nn.decoder import Attention, Decoder, Mlp
from wavroute.nn.routed import Routed


def shard(model: Decoder, mesh: DeviceMesh | None = None, **options: Any) -> Decoder:
    """Shards parameters, gradients and optimizer state by ``fully_shard``: each attention and MLP
    is gathered when it runs; embedding, norms, routers and head once for a pass.

    mesh: of one dimension; None: all processes. options: fully_shard's.

    Returns: the model, changed in place. Make its optimizer afterwards.
    """
    from torch.distributed.fsdp import fully_shard

    for module in model.modules():
        if isinstance(module, (Attention, Mlp)):
            fully_shard(module, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model


def split(model: Decoder, mesh: DeviceMesh) -> Decoder:
    """Splits attention by heads and MLPs by hidden units over ``mesh`` (tensor parallel). The
    stream is whole on every device: an update is summed before it is written, once for a sublayer,
    whatever the scheme.

    Returns: the model, changed in place. Errors: ValueError where the heads or the hidden units
    can't be divided evenly.
    """
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    size = mesh.size()
    plan: dict[str, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            if module.heads % size or module.kv_heads % size:
                raise ValueError(f"expected heads that {size} devices share evenly, given "
                                 f"{module.heads} heads and {module.kv_heads} key-value heads")
            first, last = ("q_proj", "k_proj", "v_proj"), "o_proj"
        elif isinstance(module, Mlp):
            if module.up_proj.out_features % size:
                raise ValueError(f"expected hidden units that {size} devices share evenly, given "
                                 f"{module.up_proj.out_features}")
            first, last = ("gate_proj", "up_proj"), "down_proj"
        else:
            continue
        plan |= {f"{name}.{part}": ColwiseParallel() for part in first}
        plan[f"{name}.{last}"] = RowwiseParallel()
    parallelize_module(model, mesh, plan)
    return model


#: Schemes whose state between two layers is their sources (or one sum), and nothing else.
_IN_STAGES = ("prenorm", "rezero", "layerscale", "full_attnres", "block_attnres", "haares", "wav")


class Pipeline:
    """The layers of a decoder in stages, dealt out in turn to the processes of a group.

    A stage is sent the sources that its process lacks, no others: with more stages than processes,
    a process has those of its earlier stages. A sum (prenorm) is one source. In the backward the
    gradients of those sources come back the same way.

    model: every process gives the same one; afterwards it has the parameters of its own stages
    alone. stages: a multiple of the processes; None: one for each. Boundaries lie between blocks.

    Errors: ValueError for a scheme or a number of layers that can't be cut like that.
    """

    def __init__(self, model: Decoder, group: dist.ProcessGroup | None = None,
                 stages: int | None = None) -> None:
        self.model, self.group = model, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.stages = self.size if stages is None else stages
        residual = model.residual
        if residual.scheme not in _IN_STAGES:
            raise ValueError(
                f"expected a scheme of {', '.join(_IN_STAGES)}, given {residual.scheme}")
        if model.config["tie_word_embeddings"]:
            raise ValueError("expected a head of its own in the last stage, given tied embeddings")
        if self.stages % self.size:
            raise ValueError(f"expected a multiple of {self.size} stages, given {self.stages}")
        layers = model.config["num_hidden_layers"]
        self._is_routed = residual.scheme in _IN_STAGES[3:]
        unit = max(1, residual.block_length // 2) if self._is_routed else 1
        if layers % (self.stages * unit):
            raise ValueError(f"expected a multiple of {self.stages} stages x {unit} layers of a "
                             f"block, given {layers} layers")
        self._each = layers // self.stages
        self._kind = model.model.norm.weight.dtype
        self._rotation = model._rotation(model.config["max_position_embeddings"],
                                         model.model.norm.weight.device)
        #: Bytes that this process has sent.
        self.sent = 0
        self._drop_others()

    def step(self, ids: Tensor, targets: Tensor, micro_batches: int = 1) -> Tensor:
        """Forward and backward of a batch ids, targets [B, T]: adds to the gradients of this
        process's parameters those of the mean cross-entropy.

        Returns: the loss, in every process. Every target counts: -100 isn't taken. Errors:
        ValueError where B isn't a multiple of micro_batches.
        """
        if ids.shape[0] % micro_batches:
            raise ValueError(f"expected a multiple of {micro_batches} rows, given {ids.shape[0]}")
        parts = list(zip(ids.chunk(micro_batches), targets.chunk(micro_batches)))
        # At a clock, stage v has micro-batch clock - v.
        order = sorted((m + v, v, m) for v in range(self.stages) for m in range(micro_batches))
        passes = [_MicroBatch() for _ in parts]
        loss = torch.zeros((), device=ids.device)
        waiting: list[Any] = []
        for _, v, m in order:
            if self._process(v) == self.rank:
                part = self._forward(v, passes[m], *parts[m], waiting)
                if part is not None:
                    passes[m].losses = part / micro_batches
                    loss += passes[m].losses.detach()
        for _, v, m in reversed(order):
            if self._process(v) == self.rank:
                self._backward(v, passes[m], waiting)
        for work in waiting:
            work.wait()
        dist.broadcast(loss, self._global(self.stages - 1), self.group)
        return loss

    # ---- which stage is where, and what it has --------------------------------------------------

    def _process(self, stage: int) -> int:
        return stage % self.size

    def _global(self, stage: int) -> int:
        rank = self._process(stage)
        return rank if self.group is None else dist.get_global_rank(self.group, rank)

    def _layers(self, stage: int) -> range:
        return range(stage * self._each, (stage + 1) * self._each)

    def _sources_after(self, stage: int) -> int:
        """How many sources there are after a stage, from the first one on."""
        if stage < 0:
            return 0
        if not self._is_routed:
            return stage + 1  # each stage's sum takes the place of the one before
        residual = self.model.residual
        blocks = 2 * self._each * (stage + 1) // residual.block_length
        return 1 + blocks * (1 + len(residual.options.get("details", [])))

    def _lacking(self, stage: int) -> range:
        """The sources that the stage before sends to this one's process."""
        end = self._sources_after(stage - 1)
        if self.size == 1 or stage == 0:
            return range(0)
        return range(self._sources_after(stage - self.size) if self._is_routed else end - 1, end)

    def _drop_others(self) -> None:
        own = {layer for stage in range(self.rank, self.stages, self.size)
               for layer in self._layers(stage)}
        for name, module in self.model.named_modules():
            path = name.split(".")
            if path[:2] == ["model", "layers"] and len(path) > 2:
                kept = int(path[2]) in own
            elif path[:2] == ["model", "embed_tokens"]:
                kept = self.rank == 0
            else:  # the last norm, its router and the head
                kept = self._process(self.stages - 1) == self.rank
            if not kept:
                module._parameters.clear()

    # ---- one stage ------------------------------------------------------------------------------

    def _forward(self, stage: int, batch: _MicroBatch, ids: Tensor, targets: Tensor,
                 waiting: list[Any]) -> Tensor | None:
        model, residual = self.model, self.model.residual
        if stage == 0:
            e = model.model.embed_tokens(ids)
            s = residual.begin(e)
            inputs: list[Tensor] = []
        else:
            self._receive(stage, batch, ids)
            first = 0 if self._is_routed else len(batch.sources) - 1
            inputs = [source.detach().requires_grad_() for source in batch.sources[first:]]
            s = residual.begin(inputs[0].view(*ids.shape, residual.width))
            if isinstance(s, Routed):
                s._rows = inputs
                s._ratio, s._inverse = torch.stack(batch.ratios), torch.stack(batch.inverses)
            s._at = 2 * self._layers(stage)[0]
        cos, sin = (table[:ids.shape[1]] for table in self._rotation)
        for layer in self._layers(stage):
            branch = getattr(model.model.layers, str(layer))
            norms = (None, None)
            if residual.has_sublayer_norms:
                norms = (branch.input_layernorm.weight, branch.post_attention_layernorm.weight)
            s.write(2 * layer, branch.self_attn(s.read(2 * layer, norm=norms[0]), cos, sin))
            s.write(2 * layer + 1, branch.mlp(s.read(2 * layer + 1, norm=norms[1])))
        if stage + 1 == self.stages:
            x = s.read_out(norm=model.model.norm.weight)
            logits = model.lm_head(x).flatten(0, 1)
            batch.inputs[stage] = inputs
            return functional.cross_entropy(logits, targets.flatten())
        if isinstance(s, Routed):
            s._end_block()
            new = s._rows[len(inputs):]
            batch.ratios, batch.inverses = list(s._ratio.unbind()), list(s._inverse.unbind())
        else:
            s._take_in()
            new = [s._h.reshape(-1, residual.width)]
        batch.inputs[stage], batch.outputs[stage] = inputs, new
        batch.sources += [source.detach() for source in new]
        self._send_sources(stage, batch, waiting)
        return None

    def _send_sources(self, stage: int, batch: _MicroBatch, waiting: list[Any]) -> None:
        sent = self._lacking(stage + 1)
        if not sent:
            return
        self._send(torch.stack(batch.sources[-len(sent):]), stage + 1, waiting)
        if self._is_routed:
            of_tokens = batch.ratios[-len(sent):] + batch.inverses[-len(sent):]
            self._send(torch.stack(of_tokens), stage + 1, waiting)

    def _receive(self, stage: int, batch: _MicroBatch, ids: Tensor) -> None:
        lacking, width = self._lacking(stage), self.model.residual.width
        if not lacking:
            return
        wide = torch.float64 if self._kind == torch.float64 else torch.float32
        like = torch.empty((), dtype=wide, device=ids.device)
        sources = like.new_empty(len(lacking), ids.numel(), width)
        dist.recv(sources, self._global(stage - 1), self.group)
        batch.sources += list(sources.unbind())
        if self._is_routed:
            of_tokens = like.new_empty(2 * len(lacking), ids.numel())
            dist.recv(of_tokens, self._global(stage - 1), self.group)
            ratios, inverses = of_tokens.chunk(2)
            batch.ratios += list(ratios.unbind())
            batch.inverses += list(inverses.unbind())

    def _send(self, tensor: Tensor, stage: int, waiting: list[Any]) -> None:
        tensor = tensor.contiguous()
        self.sent += tensor.numel() * tensor.element_size()
        waiting.append(dist.isend(tensor, self._global(stage), self.group))
        waiting.append(_Kept(tensor))

    def _backward(self, stage: int, batch: _MicroBatch, waiting: list[Any]) -> None:
        if stage + 1 < self.stages:
            self._receive_gradients(stage, batch)
        inputs = batch.inputs.pop(stage)
        if stage + 1 == self.stages:
            assert batch.losses is not None
            batch.losses.backward()
        else:
            outputs = batch.outputs.pop(stage)
            end = self._sources_after(stage)
            places = range(end - len(outputs), end)
            pairs = [(output, batch.gradients.pop(place)) for output, place in zip(outputs, places)
                     if place in batch.gradients]
            torch.autograd.backward([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        end = self._sources_after(stage - 1)
        for place, source in zip(range(end - len(inputs), end), inputs):
            batch.add(place, source.grad)
        lacking = self._lacking(stage)
        if lacking:
            gradients = [batch.take(place, inputs[0]) for place in lacking]
            self._send(torch.stack(gradients), stage - 1, waiting)

    def _receive_gradients(self, stage: int, batch: _MicroBatch) -> None:
        places = self._lacking(stage + 1)
        if not places:
            return
        like = batch.outputs[stage][0]
        gradients = like.new_empty(len(places), *like.shape)
        dist.recv(gradients, self._global(stage + 1), self.group)
        for place, gradient in zip(places, gradients.unbind()):
            batch.add(place, gradient)


class _Kept:
    """Holds a tensor until its sending is over."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def wait(self) -> None:
        pass


class _MicroBatch:
    """What a process keeps of a micro-batch: sources and their gradients, by place."""

    def __init__(self) -> None:
        self.sources: list[Tensor] = []
        self.ratios: list[Tensor] = []
        self.inverses: list[Tensor] = []
        self.inputs: dict[int, list[Tensor]] = {}  # by stage
        self.outputs: dict[int, list[Tensor]] = {}
        self.gradients: dict[int, Tensor] = {}
        self.losses: Tensor | None = None

    def add(self, place: int, gradient: Tensor | None) -> None:
        if gradient is None:
            return
        before = self.gradients.get(place)
        self.gradients[place] = gradient if before is None else before + gradient

    def take(self, place: int, like: Tensor) -> Tensor:
        found = self.gradients.pop(place, None)
        return torch.zeros_like(like) if found is None else found
