"""One process of test_parallel.py: wavroute.parallel in two processes against the model in one."""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from wavroute import nn, parallel

ROWS, LENGTH, VOCABULARY, WIDTH = 4, 16, 23, 32
TOLERANCE = 2e-6  # of a sum in another order


def new_model(scheme, options):
    config = {
        "hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": VOCABULARY, "intermediate_size": 48,
        "max_position_embeddings": LENGTH, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "residual": {"scheme": scheme, **options},
    }
    model = nn.Decoder(config, seed=3)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():  # no zero query, no unit gain
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


def assert_same(model, loss, expected, gradients):
    torch.testing.assert_close(loss, expected, rtol=0, atol=TOLERANCE)
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        whole = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
        torch.testing.assert_close(whole, gradients[name], rtol=0, atol=TOLERANCE, msg=name)


def refuses(call, words):
    try:
        call()
    except ValueError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"nothing was refused: {words}")


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, mesh = dist.get_rank(), init_device_mesh("cpu", (2,))
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCABULARY, (ROWS, LENGTH + 1), generator=draw)
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    a_source = ROWS * LENGTH * WIDTH * 4  # bytes
    a_token = 2 * ROWS * LENGTH * 4  # two numbers that go with each source

    # Scheme, options, stages; then what the first process sends, in sources.
    for scheme, options, stages, forward, backward in [
        ("prenorm", {}, 2, 1, 0),
        ("prenorm", {}, 4, 2, 1),
        ("wav", {"blocks": 2}, 2, 1 + 3, 0),
        # The third stage has the first one's sources already, and the fourth the second one's.
        ("wav", {"blocks": 4}, 4, (1 + 3) + 3, 3),
        ("haares", {"blocks": 2}, 2, 1 + 2, 0),
        ("full_attnres", {}, 2, 1 + 4, 0),
    ]:
        single = new_model(scheme, options)
        expected = single(ids, targets)
        expected.backward()
        expected = expected.detach()
        gradients = {name: parameter.grad for name, parameter in single.named_parameters()}

        pipeline = parallel.Pipeline(new_model(scheme, options), stages=stages)
        loss = pipeline.step(ids, targets, micro_batches=2)
        assert_same(pipeline.model, loss, expected, gradients)
        assert len(list(pipeline.model.parameters())) < len(gradients)
        if rank == 0:
            numbers = 0 if scheme == "prenorm" else forward * a_token
            assert pipeline.sent == (forward + backward) * a_source + numbers, (scheme, stages)
        if scheme not in ("prenorm", "wav") or stages == 4:
            continue

        split = parallel.split(new_model(scheme, options), mesh)
        loss = split(ids, targets)
        loss.backward()
        assert_same(split, loss.detach(), expected, gradients)

        shards = parallel.shard(new_model(scheme, options), mesh)
        own = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
        loss = shards(ids[own], targets[own])
        loss.backward()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        assert_same(shards, mean / 2, expected, gradients)

    refuses(lambda: parallel.Pipeline(new_model("gated", {})), "expected a scheme of ")
    refuses(lambda: parallel.Pipeline(new_model("wav", {"blocks": 1})), "2 stages x 4 layers")
    refuses(lambda: parallel.Pipeline(new_model("wav", {}), stages=3), "a multiple of 2 stages")
    print("done", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
