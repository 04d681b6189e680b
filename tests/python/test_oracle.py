"""The oracle itself: the identities of docs/method.md §6 and finite differences. It is
checked itself before the product is checked against it."""

import math

import pytest
import torch

import oracle
from oracle import (
    Matching,
    cross_entropy,
    forward,
    gradients,
    through_eps_alone,
    without_gradient,
)
from oracle_parameters import ADDITIVE, make_config, random_parameters
from oracle_schemes import READ_OUT, SCHEMES, Blocks

VOCAB, BATCH, POSITIONS = 19, 2, 9


def batch(seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCAB, (BATCH, POSITIONS + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def logits(config: dict, params: dict, **how) -> torch.Tensor:
    return forward(config, params, batch()[0], **how).logits


def random_model(scheme: str, **options) -> tuple[dict, dict]:
    config = make_config(scheme, vocab=VOCAB, **options)
    return config, random_parameters(config)


def filled(params: dict, ending: str, value: float) -> dict:
    changed = [name for name in params if name.endswith(ending)]
    assert changed, ending
    return params | {name: torch.full_like(params[name], value) for name in changed}


def assert_close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-11) -> None:
    assert b.norm() > 0
    assert ((a - b).norm() / b.norm()).item() <= tolerance


# --- against another implementation -----------------------------------------------------------


@pytest.mark.parametrize("kv_heads, tie", [(4, False), (2, False), (1, True)])
def test_prenorm_is_the_llama_of_transformers(kv_heads, tie):
    transformers = pytest.importorskip("transformers")
    config, params = random_model("prenorm", heads=4, kv_heads=kv_heads, tie=tie)
    fields = {name: value for name, value in config.items() if name != "residual"}
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields))
    state = params | ({"lm_head.weight": params["model.embed_tokens.weight"]} if tie else {})
    llama.double().load_state_dict(state)
    ids = batch()[0]
    with torch.no_grad():
        # Its rotary angles are float32 whatever the model's type is.
        assert_close(llama(input_ids=ids).logits, forward(config, params, ids).logits, 1e-6)


# --- finite differences (§6.6) ----------------------------------------------------------------

VARIANTS = [(scheme, {}) for scheme in SCHEMES] + [
    ("gated", {"per_channel": True, "windows": [1, 3]}),
    ("act", {"shared": True, "tau": 0.5, "epsilon": 0.2}),
    ("rezero", {"norm": "none"}),
    ("layerdrop", {"rescale": True, "schedule": "linear", "p": 0.5}),
    ("gated", {"frozen": True}),
    ("wav", {"blocks": 4, "partial_details": False}),
    ("denseformer", {"dilation": 2, "period": 2}),
    ("mhc_lite", {"streams": 2}),
]
variant_id = lambda value: value if isinstance(value, str) else ",".join(value) or "defaults"


def slope(config: dict, params: dict, direction: dict, matching: Matching) -> float:
    """d(cross-entropy + auxiliary) along `direction`, by central differences."""
    ids, targets = batch()
    step, values = 1e-5, []
    for sign in (1, -1):
        matching.hold()
        moved = {name: p + sign * step * direction[name] for name, p in params.items()}
        output = forward(config, moved, ids, training=True, matching=matching)
        values.append((cross_entropy(output.logits, targets) + output.auxiliary).item())
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("scheme, options", VARIANTS, ids=variant_id)
def test_every_gradient_is_the_finite_difference_with_ratios_held(scheme, options):
    config, params = random_model(scheme, **options)
    matching = Matching()
    output, _, grads = gradients(config, params, *batch(), training=True, matching=matching)
    generator = torch.Generator().manual_seed(3)
    zero, faint = without_gradient(output), through_eps_alone(output)
    for name, grad in grads.items():
        assert (grad.norm() > (1e-8 if name in faint else 1e-6)) != (name in zero), name
        direction = {other: torch.zeros_like(p) for other, p in params.items()}
        # The gradient's own direction, disturbed, so that every component counts.
        noise = torch.randn(grad.shape, generator=generator, dtype=grad.dtype)
        direction[name] = grad / max(grad.norm(), 1e-9) + 0.5 * noise / noise.norm()
        expected = (grad * direction[name]).sum().item()
        found = slope(config, params, direction, matching)
        assert found == pytest.approx(expected, rel=2e-6, abs=1e-9), name


def test_the_finite_difference_sees_a_ratio_that_is_not_held():
    config, params = random_model("wav", blocks=4)
    _, _, grads = gradients(config, params, *batch(), training=True)
    name = "model.layers.1.mlp.down_proj.weight"
    direction = {other: torch.zeros_like(p) for other, p in params.items()}
    direction[name] = grads[name] / grads[name].norm()

    class Free(Matching):
        def hold(self):
            pass

    assert abs(slope(config, params, direction, Free()) - grads[name].norm().item()) > 1e-4


# --- identities -------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [2, 4])
def test_no_details_is_bit_equal_to_block_attnres(blocks):
    config, params = random_model("block_attnres", blocks=blocks)
    bare = make_config("wav", blocks=blocks, details=[])
    assert torch.equal(logits(bare, params), logits(config, params))


def test_blocks_of_one_sublayer_equal_full_attnres():
    config, params = random_model("full_attnres")
    blocked = make_config("block_attnres", blocks=8)
    assert_close(logits(blocked, params), logits(config, params))


def test_a_single_block_routes_over_embedding_and_running_sum_only():
    config, params = random_model("block_attnres", blocks=1)
    reads = forward(config, params, batch()[0]).model.reads
    assert len(reads) == 8  # every sublayer but the first, and the read-out
    assert all(sources == ["summary", "summary"] for sources in reads.values())


def test_sources_follow_the_block_structure():
    config, params = random_model("wav", blocks=2)
    reads = forward(config, params, batch()[0]).model.reads
    block = ["summary", "phase", "split"]
    assert reads["model.layers.0.mlp_res"] == ["summary"] + block
    assert reads["model.layers.2.self_attention_res"] == ["summary"] + block  # block 2 is empty yet
    assert reads["model.layers.2.mlp_res"] == ["summary"] + 2 * block
    assert reads[READ_OUT] == ["summary"] + 2 * block
    late = make_config("wav", blocks=2, partial_details=False)
    reads = forward(late, params, batch()[0]).model.reads
    assert reads["model.layers.0.mlp_res"] == ["summary", "summary"]
    assert reads["model.layers.2.mlp_res"] == ["summary"] + block + ["summary"]
    assert reads[READ_OUT] == ["summary"] + 2 * block


def test_fresh_router_gives_a_detail_exp_beta_of_a_summary():
    config, params = random_model("wav", blocks=2)
    fresh = filled(filled(params, "_res_proj.weight", 0.0), "_res_bias", -4.0)
    model = forward(config, fresh, batch()[0]).model
    for router, weights in model.weights.items():
        bases = model.reads[router]
        factor = torch.tensor([1.0 if basis == "summary" else math.exp(-4) for basis in bases])
        assert_close(weights, (factor / factor.sum()).expand_as(weights), 1e-6)


@pytest.mark.parametrize(
    "scheme, options, ending, value",
    [
        ("rezero", {}, "_residual_scale", 1.0),
        ("layerscale", {}, "_residual_scale", 1.0),
        ("block_layerscale", {"blocks": 3, "layers": 5}, "block_residual_scale", 1.0),
        ("gated", {}, "_gate.fc2.bias", 1e3),
        ("gated", {"frozen": True}, "_gate.fc2.bias", 0.0),
        ("layerdrop", {"rescale": True, "p": 0.0}, "", None),
    ],
)
def test_neutral_scales_equal_prenorm(scheme, options, ending, value):
    config, params = random_model(scheme, **options)
    params = filled(params, ending, value) if ending else params
    plain = make_config("prenorm", layers=options.get("layers", 4))
    assert_close(logits(config, params, training=True), logits(plain, params))


def test_rezero_at_init_passes_the_embedding_through():
    config, params = random_model("rezero")
    params = filled(params, "_residual_scale", 0.0)
    gain, embedding = params["model.norm.weight"], params["model.embed_tokens.weight"]
    through = oracle.rms_norm(embedding[batch()[0]], gain, 1e-6) @ params["lm_head.weight"].T
    assert torch.equal(logits(config, params), through)


@pytest.mark.parametrize("options", [{}, {"dilation": 2}, {"period": 2}], ids=str)
@pytest.mark.parametrize("program", [None, "0,2x2,3", "0-2,1,3"])
def test_denseformer_at_init_is_prenorm(options, program):
    config, params = random_model("denseformer", **options)
    for name, weights in params.items():
        if name.endswith("depth_weights"):
            params[name] = torch.zeros_like(weights)
            params[name][-1] = 1
    layers = oracle.parse_program(program) if program else None
    plain = logits(make_config("prenorm"), params, layers=layers)
    assert torch.equal(logits(config, params, layers=layers), plain)


def test_a_weight_that_dilation_leaves_out_is_a_zero():
    config, params = random_model("denseformer", dilation=2)
    full = dict(params)
    for layer in range(4):
        name, i = f"model.layers.{layer}.depth_weights", layer + 1
        full[name] = torch.zeros(i + 1, dtype=torch.float64)
        full[name][i % 2 :: 2] = params[name]
    assert_close(logits(make_config("denseformer"), full), logits(config, params))


def test_mhc_lite_of_even_reads_and_unit_writes_is_prenorm():
    """All streams stay equal: a quarter of each is read, and one update is added to each."""
    config, params = random_model("mhc_lite")
    for part in ("pre", "post"):
        params = filled(params, f"_hc_{part}.weight", 0.0)
    params = filled(filled(params, "_hc_pre.bias", -math.log(3)), "_hc_post.bias", 0.0)
    exact = {"rms_norm_eps": 0.0}
    assert_close(logits(config | exact, params), logits(make_config("prenorm") | exact, params))


@pytest.mark.parametrize("scheme, options", VARIANTS, ids=variant_id)
def test_no_position_sees_a_later_one(scheme, options):
    config, params = random_model(scheme, **options)
    ids = batch()[0]
    for later in (1, POSITIONS - 1):
        changed = ids.clone()
        changed[:, later] = (changed[:, later] + 1) % VOCAB
        before, after = forward(config, params, ids).logits, forward(config, params, changed).logits
        assert torch.equal(before[:, :later], after[:, :later])
        assert not torch.equal(before[:, later], after[:, later])


def test_a_matched_detail_has_the_rms_of_its_summary():
    generator = torch.Generator().manual_seed(1)
    detail, summary = torch.randn(2, 3, 5, 24, generator=generator, dtype=torch.float64)
    matched = Matching().ratio(0.03 * detail, summary) * 0.03 * detail
    rms = lambda x: x.square().mean(-1).sqrt()
    assert ((rms(matched) / rms(summary) - 1).abs() <= 1e-12 / (0.03 * rms(detail)) ** 2).all()
    nothing = torch.zeros_like(detail)
    assert torch.equal(Matching().ratio(nothing, summary) * nothing, nothing)


@pytest.mark.parametrize("sublayers, count", [(8, 1), (8, 2), (8, 4), (12, 2), (12, 1), (10, 3)])
def test_bases_are_zero_sum_and_orthogonal_iff_the_length_is_a_multiple_of_four(sublayers, count):
    blocks = Blocks(sublayers, count)
    for block in range(count):
        own = [l for l in range(sublayers) if blocks.block(l) == block]
        assert len(own) == blocks.own_length(block)
        phase, split = ([blocks.sign(b, l) for l in own] for b in ("phase", "split"))
        assert sum(phase) == 0 and sum(split) == 0
        product = sum(p * q for p, q in zip(phase, split))
        assert (product == 0) == (len(own) % 4 == 0)


def test_the_scale_of_a_basis_does_not_matter(monkeypatch):
    config, params = random_model("wav", blocks=2)
    before = logits(config, params)
    sign = Blocks.sign
    factor = {"phase": 7.0, "split": 0.01}
    monkeypatch.setattr(Blocks, "sign", lambda self, b, l: factor[b] * sign(self, b, l))
    assert_close(logits(config, params), before, 1e-7)


@pytest.mark.parametrize("scheme, blocks", [("full_attnres", 0), ("block_attnres", 3), ("wav", 3),
                                            ("haares", 3)])
def test_even_weights_without_eps_compute_prenorm(scheme, blocks):
    options = {"blocks": blocks} if blocks else {}
    config, params = random_model(scheme, layers=5, **options)
    params = filled(params, "_res_proj.weight", 0.0)
    if scheme in ("wav", "haares"):
        params = filled(params, "_res_bias", -1e4)
    plain = make_config("prenorm", layers=5)
    exact = {"rms_norm_eps": 0.0}
    assert_close(logits(config | exact, params), logits(plain | exact, params))


@pytest.mark.parametrize("scheme", sorted(set(SCHEMES) - {"act", "full_attnres"}))
def test_the_program_of_all_layers_changes_nothing(scheme):
    config, params = random_model(scheme)
    every = oracle.parse_program("0-3")
    assert torch.equal(logits(config, params, layers=every), logits(config, params))


@pytest.mark.parametrize("scheme", ADDITIVE)
def test_a_skipped_layer_adds_nothing(scheme):
    config, params = random_model(scheme)
    silent = filled(filled(params, "2.self_attn.o_proj.weight", 0), "2.mlp.down_proj.weight", 0)
    skipped = logits(config, params, layers=oracle.parse_program("0,1,3"))
    assert_close(skipped, logits(config, silent))


def test_a_sum_that_nothing_was_added_to_is_no_source():
    config, params = random_model("wav", blocks=2)
    model = forward(config, params, batch()[0], layers=oracle.parse_program("2x2")).model
    block = ["summary", "phase", "split"]
    assert model.reads["model.layers.2.self_attention_res"] == ["summary"] + (["summary"] + block)
    assert model.reads[READ_OUT] == ["summary"] + block


def test_a_program_is_read_as_written():
    assert oracle.parse_program("0-2,4x3,6,5-6") == [0, 1, 2, 4, 4, 4, 6, 5, 6]
