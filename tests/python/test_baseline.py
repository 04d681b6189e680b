"""bench/baseline.py: its decoder against other formulas, and its worker protocol."""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys

import paths
import pytest

torch = pytest.importorskip("torch")
import oracle  # noqa: E402  (needs torch)
import oracle_parameters  # noqa: E402

SCRIPT = paths.REPOSITORY / "bench" / "baseline.py"
SCHEMES = ("prenorm", "block_attnres", "haares", "wav")


def load():
    spec = importlib.util.spec_from_file_location("baseline", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


baseline = load()


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices: more threads are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def options(scheme: str, **changes) -> argparse.Namespace:
    sizes = dict(layers=4, width=24, heads=2, hidden=40, context=10, batch=2, vocab=19) | changes
    words = ["--scheme", scheme]
    for name, value in sizes.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return baseline.parse(words)


def decoder(o: argparse.Namespace, seed: int = 0):
    torch.manual_seed(seed)
    return baseline.Decoder(o).double()


def stir(model, seed: int = 1):
    """Gives every parameter a value that has an effect: no zero query, no gain of one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.3 * noise)


def batch(o: argparse.Namespace, seed: int = 2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(o.vocab, (o.batch, o.context), generator=generator)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kv_heads", (1, 2))
def test_parameter_count_is_arithmetic(scheme, kv_heads):
    o = options(scheme, kv_heads=kv_heads)
    d, layers = 24, 4
    expected = 2 * 19 * d + d  # embedding, head, final norm
    expected += layers * (2 * d * d + 2 * d * kv_heads * 12 + 3 * d * 40 + 2 * d)
    details = {"prenorm": None, "block_attnres": 0, "haares": 1, "wav": 2}[scheme]
    if details is not None:  # 2L - 1 sublayers and the read-out; query, gain, biases
        expected += 2 * layers * (2 * d + details)
    assert sum(p.numel() for p in decoder(o).parameters()) == expected


def test_flops_are_the_matrix_products_and_half_of_attention():
    o = options("wav", kv_heads=1)
    tokens, d = 2 * 10, 24
    products = 4 * (d * 24 + 2 * d * 12 + d * 24 + 3 * d * 40) + d * 19
    attention = 4 * 2 * 10 * d / 2  # scores and mixture over T positions, half of them masked
    assert baseline.flops_per_step(o) == 3 * 2 * tokens * (products + attention)


@pytest.mark.parametrize("layers, blocks", ((12, 6), (24, 6), (48, 6), (1, 1), (5, 5), (7, 1)))
def test_default_blocks_are_the_documented_ones(layers, blocks):
    # K = 4, 8, 16 at L = 12, 24, 48. L = 5: 10 sublayers have no block of a multiple of 4, and
    # 5 blocks of 2; L = 7: 14 sublayers allow blocks of 2 (7 of them, too many) and of 14.
    assert baseline.default_blocks(layers) == blocks


def checkpoint(model, of=lambda parameter: parameter.detach()) -> dict:
    """Under checkpoint names, of(parameter) for every parameter; fused ones are split."""
    found = {"model.embed_tokens.weight": of(model.embedding.weight),
             "model.norm.weight": of(model.final_norm.weight), "lm_head.weight": of(model.head.weight)}
    for i in range(model.layers):
        attention, mlp = model.sublayers[2 * i : 2 * i + 2]
        keys = attention.kv_heads * attention.head_width
        q, k, v = of(attention.qkv.weight).split((attention.out.weight.shape[0], keys, keys))
        gate, up = of(mlp.gate_up.weight).chunk(2)
        layer = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v,
                 "self_attn.o_proj": of(attention.out.weight), "mlp.gate_proj": gate,
                 "mlp.up_proj": up, "mlp.down_proj": of(mlp.out.weight),
                 "input_layernorm": of(model.norms[2 * i].weight),
                 "post_attention_layernorm": of(model.norms[2 * i + 1].weight)}
        found |= {f"model.layers.{i}.{name}.weight": value for name, value in layer.items()}
    names = [f"model.layers.{i}.{kind}" for i in range(model.layers)
             for kind in ("self_attention", "mlp")][1:] + ["model.output_attn"]
    for name, router in zip(names, model.routers if model.routed else ()):
        found[f"{name}_res_proj.weight"] = of(router.query).view(1, -1)
        found[f"{name}_res_norm.weight"] = of(router.gain)
        if router.bias is not None:
            found[f"{name}_res_bias"] = of(router.bias)
    return found


def test_prenorm_is_the_llama_of_transformers():
    transformers = pytest.importorskip("transformers")
    o = options("prenorm", kv_heads=1)
    ours = decoder(o)
    stir(ours)
    config = transformers.LlamaConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=19, rms_norm_eps=1e-6, max_position_embeddings=10,
        tie_word_embeddings=False)
    llama = transformers.LlamaForCausalLM(config).double()
    llama.load_state_dict(checkpoint(ours))
    # The rotary tables are float32 in both.
    torch.testing.assert_close(ours.logits(batch(o)), llama(batch(o)).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("layers, blocks", ((4, 2), (5, 3)), ids=("even", "shorter last block"))
@pytest.mark.parametrize("partial_details", (True, False))
def test_loss_and_gradients_are_the_plain_formulas(scheme, layers, blocks, partial_details):
    o = options(scheme, layers=layers, blocks=blocks, kv_heads=1)
    o.partial_details = partial_details
    model = decoder(o)
    stir(model)
    ids, targets = batch(o), batch(o, seed=7)
    loss = model(ids, targets)
    loss.backward()
    routing = {} if scheme == "prenorm" else {"blocks": blocks, "partial_details": partial_details}
    config = oracle_parameters.make_config(scheme, layers=layers, kv_heads=1, **routing)
    _, wanted_loss, wanted = oracle.gradients(config, checkpoint(model), ids, targets)
    # float32 in the baseline: the rotary tables and the loss.
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-5)
    found = checkpoint(model, of=lambda parameter: parameter.grad)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        # Without partial details the routers of the first block have no detail to weigh.
        weightless = name.endswith("_res_bias") and not partial_details
        assert gradient.norm() > 0 or weightless, name
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("scheme", ("haares", "wav"))
@pytest.mark.parametrize("blocks", (1, 2, 4))
def test_details_without_weight_leave_block_attnres(scheme, blocks):
    plain, routed = decoder(options("block_attnres", blocks=blocks)), decoder(
        options(scheme, blocks=blocks))
    stir(plain)
    routed.load_state_dict(plain.state_dict(), strict=False)
    for router in routed.routers:
        torch.nn.init.constant_(router.bias, -1e9)
    ids = batch(options("wav"))
    torch.testing.assert_close(routed.logits(ids), plain.logits(ids))


@pytest.mark.parametrize("scheme", ("block_attnres", "haares", "wav"))
def test_fresh_queries_make_prenorm_where_details_have_no_weight(scheme):
    # An even average of all summaries is their sum over the count, and norms ignore a factor.
    o = options(scheme, eps=0.0, blocks=2)
    routed, plain = decoder(o), decoder(options("prenorm", eps=0.0))
    plain.load_state_dict(routed.state_dict(), strict=False)
    for router in routed.routers if scheme != "block_attnres" else ():
        torch.nn.init.constant_(router.bias, -1e9)
    ids = batch(o)
    torch.testing.assert_close(routed.logits(ids), plain.logits(ids), rtol=1e-6, atol=1e-7)


def test_a_fresh_detail_gets_e_to_the_bias_of_a_summarys_share():
    router = baseline.Router(3, 2, 1e-6).double()
    sources = [torch.eye(3, dtype=torch.float64)[i].view(1, 1, 3) for i in range(3)]
    mixed = router(sources, [0, 1, 2]).flatten().detach()
    assert (mixed[1] / mixed[0]).item() == pytest.approx(math.exp(-4))
    assert mixed.sum().item() == pytest.approx(1)


def test_a_matched_detail_has_the_summarys_size_and_passes_no_gradient_to_it():
    generator = torch.Generator().manual_seed(5)
    detail, summary = (torch.randn(2, 3, 8, generator=generator, dtype=torch.float64,
                                   requires_grad=True) for _ in range(2))
    matched = baseline.match(detail, summary)
    torch.testing.assert_close(matched.square().mean(-1), summary.square().mean(-1))
    matched.sum().backward()
    assert summary.grad is None
    ratio = (matched / detail).detach()
    torch.testing.assert_close(detail.grad, ratio)


def test_a_detail_of_nothing_is_nothing():
    zero = torch.zeros(1, 1, 4, requires_grad=True)
    matched = baseline.match(zero, torch.ones(1, 1, 4))
    assert torch.equal(matched, torch.zeros(1, 1, 4))


def test_sources_are_the_sums_with_the_signs_of_the_page():
    o = options("wav", layers=4, blocks=2)  # two blocks of 4 sublayers
    stream = baseline.RoutedStream(decoder(o), torch.full((1, 1, 24), 100.0))
    updates = [torch.randn(1, 1, 24, dtype=torch.float64) for _ in range(8)]
    for update in updates:
        stream.write(update)
    assert stream.kinds == [0, 0, 1, 2, 0, 1, 2]
    a, b, c, d = updates[4:]
    torch.testing.assert_close(stream.sources[4], a + b + c + d)
    for source, wanted in zip(stream.sources[5:], (a - b + c - d, a + b - c - d)):
        torch.testing.assert_close(source / source.norm(), wanted / wanted.norm())


def test_a_shorter_last_block_uses_its_own_length():
    o = options("wav", layers=5, blocks=3)  # 10 sublayers: 4, 4, 2
    stream = baseline.RoutedStream(decoder(o), torch.zeros(1, 1, 24))
    updates = [torch.randn(1, 1, 24, dtype=torch.float64) for _ in range(10)]
    for update in updates:
        stream.write(update)
    assert len(stream.sources) == 1 + 3 * 3
    wanted = updates[8] - updates[9]  # phase and split alike
    for source in stream.sources[-2:]:
        torch.testing.assert_close(source / source.norm(), wanted / wanted.norm())


def test_partial_details_change_what_is_read_but_not_the_parameters():
    o = options("wav")
    with_details = decoder(o)
    stir(with_details)
    o.partial_details = False
    without = decoder(o)
    without.load_state_dict(with_details.state_dict())
    ids = batch(o)
    assert not torch.allclose(with_details.logits(ids), without.logits(ids))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_position_sees_a_later_one(scheme):
    o = options(scheme)
    model = decoder(o)
    stir(model)
    ids = batch(o)
    other = ids.clone()
    other[:, 6] = (other[:, 6] + 1) % o.vocab
    before, after = model.logits(ids), model.logits(other)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("details", (0, 2))
def test_router_gradients_are_the_finite_differences(details):
    generator = torch.Generator().manual_seed(3)
    router = baseline.Router(4, details, 1e-6).double()
    stir(router)
    kinds = [0, 0, 1, 2] if details else [0, 0, 0, 0]
    sources = [torch.randn(1, 2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
               for _ in kinds]
    parameters = list(router.parameters())
    assert torch.autograd.gradcheck(
        lambda *tensors: router(list(tensors[:len(kinds)]), kinds), (*sources, *parameters))


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # of a bf16 norm, which PyTorch composes
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("precision", ("fp32", "bf16"))
def test_a_fresh_model_knows_nothing_and_learns_its_batch(scheme, precision):
    o = options(scheme, vocab=256, lr=1e-2, precision=precision)
    trainer = baseline.Trainer(o)
    losses = [trainer.step()["loss"] for _ in range(10)]
    assert losses[0] == pytest.approx(math.log(256), abs=0.05)
    assert losses[-1] < losses[0] - 0.5


def test_schemes_share_their_weights_and_their_batch():
    trainers = [baseline.Trainer(options(scheme)) for scheme in SCHEMES]
    shared = dict(trainers[0].model.named_parameters())
    for trainer in trainers[1:]:
        assert torch.equal(trainer.ids, trainers[0].ids)
        parameters = dict(trainer.model.named_parameters())
        assert all(torch.equal(parameters[name], value) for name, value in shared.items())


def start(*arguments: str, commands: str = "") -> subprocess.CompletedProcess:
    sizes = ["--layers", "2", "--width", "16", "--heads", "2", "--context", "8", "--batch", "2"]
    return subprocess.run([sys.executable, str(SCRIPT), *sizes, *arguments], input=commands,
                          capture_output=True, text=True, timeout=120,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_the_worker_answers_each_command_with_one_line():
    done = start("--scheme", "wav", commands="step\nmemory\ngemm\nstep\nquit\nstep\n")
    ready, first, memory, gemm, second = map(json.loads, done.stdout.splitlines())
    assert (ready["ready"], ready["provider"], ready["scheme"]) == (True, "eager", "wav")
    assert (ready["precision"], ready["layers"], ready["width"]) == ("fp32", 2, 16)
    assert (ready["batch"], ready["context"]) == (2, 8)
    assert ready["parameters"] > 0 and ready["flops_per_step"] > 0
    assert first["ms"] > 0 and second["loss"] < first["loss"]
    assert memory["peak_rss_bytes"] > 50e6  # torch alone is larger
    assert gemm["gflops"] > 0
    assert done.returncode == 0


def test_what_it_supports_is_what_it_parses():
    done = subprocess.run([sys.executable, str(SCRIPT), "--supports"], capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    supports = json.loads(done.stdout)["supports"]
    assert set(supports) == set(SCHEMES)
    values = {"blocks": "=2", "partial_details": "", "beta": "=-3.5", "matching_epsilon": "=1e-10"}
    for scheme, entry in supports.items():
        flags = [f"--{name.replace('_', '-')}{values[name]}" for name in entry["options"]]
        o = baseline.parse(["--scheme", scheme, "--layers", "4", *flags])
        model = baseline.Decoder(o)
        assert entry["sources_per_block"] == (1 + len(model.details) if model.routed else 0)


def test_options_of_the_details_reach_the_model():
    o = options("wav", beta=-3.5, matching_epsilon=1e-10)
    model = decoder(o)
    assert all((router.bias == -3.5).all() for router in model.routers)
    assert model.matching_epsilon == 1e-10


def test_the_end_of_the_input_ends_the_worker():
    done = start("--scheme", "prenorm")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1


def test_an_exception_is_an_error_line_and_exit_status_one():
    done = start("--scheme", "prenorm", commands="jump\n")
    assert "'jump'" in json.loads(done.stdout.splitlines()[-1])["error"]
    assert done.returncode == 1


@pytest.mark.parametrize("arguments, message", (
    (["--scheme", "nonsense"], "invalid choice"),
    (["--scheme", "wav", "--layers", "0"], "whole number from 1"),
    (["--scheme", "wav", "--width", "18"], "even width"),
    (["--scheme", "wav", "--kv-heads", "4"], "multiple of kv-heads"),
    (["--scheme", "wav", "--layers", "3", "--blocks", "2"], "even length"),
    (["--scheme", "block_attnres", "--layers", "4", "--blocks", "5"], "blocks that 8 sublayers"),
))
def test_what_does_not_fit_together_is_refused(arguments, message, capsys):
    sizes = ["--layers", "2", "--width", "16", "--heads", "2"]
    with pytest.raises(SystemExit) as stopped:
        baseline.parse(sizes + arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
