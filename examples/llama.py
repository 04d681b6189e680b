"""A Llama of `transformers`, trained a little, then given wav's residual stream and trained on.

    python examples/llama.py

With fresh routers wav's reads are nearly those of prenorm, up to a size that the norms remove: a
model keeps its function, nearly, and learns to route from there (docs/method.md, 6).
"""

import argparse
import types

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from wavroute.nn import ResidualStream

VOCAB, PERIOD = 32, 7


def patch(llama, scheme, **options):
    """Puts a residual stream in the place of the additions of a LlamaForCausalLM."""
    model, last = llama.model, 2 * len(llama.model.layers)
    model.residual = ResidualStream(scheme, layers=last // 2, width=llama.config.hidden_size,
                                    eps=llama.config.rms_norm_eps, **options)

    def forward(layer, hidden_states, **kwargs):
        i = 2 * layer.self_attn.layer_idx
        s = model.residual.begin(hidden_states) if i == 0 else model.stream
        x = s.read(i, norm=layer.input_layernorm.weight)
        s.write(i, layer.self_attn(hidden_states=x, **kwargs)[0])
        s.write(i + 1, layer.mlp(s.read(i + 1, norm=layer.post_attention_layernorm.weight)))
        model.stream = s if i + 2 < last else None
        return hidden_states if i + 2 < last else s.read_out()

    for layer in model.layers:
        layer.forward = types.MethodType(forward, layer)


def batch():
    """Sequences that repeat every PERIOD tokens: what comes next is in the context alone."""
    return torch.randint(VOCAB, (16, PERIOD)).repeat(1, 5)


def train(llama, steps):
    """The losses, nats per token."""
    optimizer = torch.optim.AdamW(llama.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        ids = batch()
        loss = llama(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def main(steps=60):
    torch.manual_seed(1)
    llama = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, max_position_embeddings=64, use_cache=False))
    train(llama, steps)
    ids = batch()
    plain = llama(input_ids=ids, labels=ids).loss.item()
    patch(llama, "wav", beta=-8.0)
    patched = llama(input_ids=ids, labels=ids).loss.item()
    tuned = sum(train(llama, steps)[-10:]) / 10
    print(f"loss {plain:.3f} plain, {patched:.3f} patched, {tuned:.3f} after {steps} steps more")
    assert abs(patched - plain) < 0.05 * plain, "the patched model is another one"
    assert tuned < 0.95 * plain, "the patched model does not learn"
    assert llama.model.residual.value("model.output_attn_res_proj.weight").abs().max() > 0
    return tuned


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    main(parser.parse_args().steps)
