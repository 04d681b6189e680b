"""The product's model against the oracle, in float64: logits, losses and every gradient."""

import pytest
import torch
from torch import Tensor

import oracle
from dumped import SMALL, Dump, dump, request
from oracle_parameters import parameter_shapes
from value_cases import CASES, RECOMPUTED

TOLERANCE = 1e-9
HALTING_MARGIN = 1e-4  # docs/method.md §6.5


def apart(ours: Tensor, expected: Tensor) -> float:
    """Relative error; both zero: 0."""
    difference = (ours.double() - expected).norm().item()
    return difference / expected.norm().item() if difference else 0.0


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    """case id -> its dump, made once."""
    made: dict[str, Dump] = {}

    def get(name: str) -> Dump:
        if name not in made:
            made[name] = dump(CASES[name], tmp_path_factory.mktemp("dump") / "model.safetensors")
        return made[name]

    return get


def layers_of(name: str) -> list[int] | None:
    program = CASES[name].get("program")
    return oracle.parse_program(program) if program else None


def expected_of(name: str, dumped: Dump):
    """(oracle's Output, loss, gradients) of the pass that the case asks for."""
    training = (SMALL | CASES[name])["training"]
    layers = layers_of(name)
    if training and dumped.config["residual"].get("p"):  # the draw of layerdrop
        layers = dumped.tensors["kept_layers"].tolist()
        depth = dumped.config["num_hidden_layers"]
        assert 0 < len(layers) < depth, "choose a seed that drops some layers, not all"
    ids, targets = dumped.tensors["ids"], dumped.tensors["targets"]
    params = {parameter: p.double() for parameter, p in dumped.group("param.").items()}
    return oracle.gradients(dumped.config, params, ids, targets, training=training, layers=layers)


@pytest.mark.parametrize("name", CASES)
def test_logits_losses_and_every_gradient_are_the_oracles(name, dumps):
    dumped = dumps(name)
    output, loss, grads = expected_of(name, dumped)
    assert apart(dumped.tensors["logits"], output.logits.detach()) <= TOLERANCE
    assert apart(dumped.tensors["loss"][0], loss) <= TOLERANCE
    assert apart(dumped.tensors["aux"][0], output.auxiliary.detach()) <= TOLERANCE
    if output.halting and "act.depth" in dumped.tensors:
        assert torch.equal(dumped.tensors["act.depth"], output.halting.depth)

    ours, zero = dumped.group("grad."), oracle.without_gradient(output)
    assert ours.keys() == grads.keys()
    faint = oracle.through_eps_alone(output)
    for parameter, grad in grads.items():
        if parameter in zero:
            assert grad.norm() <= 1e-14 and ours[parameter].norm() <= 1e-14, parameter
        elif parameter in faint:  # what is left of terms that cancel
            assert (ours[parameter] - grad).norm() <= 1e-14 < 1e-2 * grad.norm(), parameter
        else:
            assert grad.norm() > 1e-8, f"{parameter}: a gradient of nothing proves nothing"
    errors = {p: apart(ours[p], grad) for p, grad in grads.items()
              if p not in zero | faint}
    assert {p: error for p, error in errors.items() if not error <= TOLERANCE} == {}


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_holds_the_parameters_of_its_scheme_and_no_others(name, dumps):
    dumped, spec = dumps(name), SMALL | CASES[name]
    config = dumped.config
    assert config["num_hidden_layers"] == spec["layers"]
    assert config["hidden_size"] == spec["width"]
    assert config["num_key_value_heads"] == spec["kv_heads"]
    assert config["tie_word_embeddings"] == spec["tie_embeddings"]
    assert spec["residual"].items() <= config["residual"].items()
    if spec["residual"]["scheme"] == "gated":
        until = spec["residual"].get("freeze", 0.1) * spec["steps"]
        assert config["residual"]["frozen"] == (spec["step"] < until)
        assert config["residual"]["rank"] == spec["residual"].get("rank", 2)  # 2 is the least
    shapes = {parameter: tuple(p.shape) for parameter, p in dumped.group("param.").items()}
    assert shapes == parameter_shapes(config)


@pytest.mark.parametrize("name", CASES)
def test_no_parameter_of_the_comparison_is_at_a_value_that_hides_a_term(name, dumps):
    for parameter, value in dumps(name).group("param.").items():
        assert value.dtype == torch.float64
        assert (value != 0).all() and (value != 1).all(), parameter
        assert value.numel() == 1 or value.std() > 1e-3, parameter


@pytest.mark.parametrize("name", CASES)
def test_prefill_and_decoding_with_a_cache_are_the_evaluation_pass(name, dumps):
    dumped = dumps(name)
    ids, params = dumped.tensors["ids"], dumped.group("param.")
    with torch.no_grad():
        expected = oracle.forward(dumped.config, params, ids, layers=layers_of(name))
    compared = torch.ones(ids.shape, dtype=torch.bool)
    if expected.halting:  # positions that see no token near the threshold
        compared = (expected.halting.margin > HALTING_MARGIN).cummin(1).values
        assert compared.double().mean() >= 0.5, "too few positions are left to compare"
    for kind in ("inference_logits", "decode_logits"):
        ours = dumped.tensors[kind]
        assert ours.shape == expected.logits.shape
        assert apart(ours[compared], expected.logits[compared]) <= TOLERANCE, kind


@pytest.mark.parametrize("name", RECOMPUTED)
@pytest.mark.parametrize("mode", ["layer", "block"])
def test_recomputation_changes_no_bit(name, mode, dumps, tmp_path):
    kept = dumps(name).tensors
    again = dump(CASES[name] | {"recompute": mode}, tmp_path / "again.safetensors").tensors
    assert again.keys() == kept.keys()
    assert [key for key in kept if not torch.equal(again[key], kept[key])] == []


# Not the cases where a detail nearly cancels: its matching ratio magnifies the rounding of bf16,
# which alone can turn 2 % in the logits into 40 % in the gradient.
@pytest.mark.parametrize("name", ["prenorm", "gated", "act-epsilon-tau", "denseformer",
                                  "mhc_lite", "full_attnres", "wav-K2"])
@pytest.mark.parametrize("precision, logits, gradient", [("fp32", 1e-5, 1e-4), ("bf16", 0.1, 0.2)])
def test_lower_precision_stays_near_the_oracle(name, precision, logits, gradient, tmp_path):
    spec = CASES[name] | {"precision": precision}
    dumped = dump(spec, tmp_path / "low.safetensors")
    output, _, grads = expected_of(name, dumped)
    assert apart(dumped.tensors["logits"], output.logits.detach()) <= logits
    ours, names = dumped.group("grad."), sorted(grads)
    flat = lambda some: torch.cat([some[name].double().flatten() for name in names])
    assert apart(flat(ours), flat(grads)) <= gradient


@pytest.mark.parametrize("p, schedule", [(0.5, "uniform"), (0.8, "linear")])
def test_layerdrop_draws_every_layer_with_its_own_probability(p, schedule, tmp_path):
    layers, counts, runs = 64, torch.zeros(64), 6
    for step in range(runs):
        spec = {"layers": layers, "width": 4, "heads": 1, "kv_heads": 1, "hidden": 2, "context": 2,
                "seed": step, "step": step,
                "residual": {"scheme": "layerdrop", "p": p, "schedule": schedule}}
        kept = dump(spec, tmp_path / f"{step}.safetensors").tensors["kept_layers"]
        assert kept.tolist() == sorted(set(kept.tolist()))
        counts[kept] += 1
    assert 0 < counts.sum() < runs * layers and counts.max() > counts.min()
    for part in (slice(0, 32), slice(32, 64)):
        keep = torch.tensor([1 - (p if schedule == "uniform" else p * i / layers)
                             for i in range(1, layers + 1)])[part]
        deviation = (runs * keep * (1 - keep)).sum().sqrt()
        assert (counts[part].sum() - runs * keep.sum()).abs() <= 4 * deviation


@pytest.mark.parametrize(
    "layers, options, words",
    [
        (5, {"scheme": "block_attnres", "blocks": 6}, ["5", "10"]),  # ceil(10/2) = 5
        (5, {"scheme": "block_layerscale", "blocks": 7}, ["5", "10"]),
        (6, {"scheme": "wav", "blocks": 4}, ["3", "6"]),  # K = 3 is odd
        (5, {"scheme": "haares", "blocks": 10}, ["5"]),  # K = 1 is odd
        (4, {"scheme": "haares", "blocks": 2, "details": ["phase"]}, ["details"]),
        (4, {"scheme": "wav", "blocks": 0}, ["blocks"]),
    ],
)
def test_blocks_that_cannot_be_are_refused_with_the_nearest_that_can(
    layers, options, words, tmp_path
):
    done = request({"layers": layers, "residual": options}, tmp_path / "none.safetensors")
    assert done.returncode == 2, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "none.safetensors").exists()


@pytest.mark.parametrize("scheme", ["act", "full_attnres"])
def test_schemes_that_depend_on_every_layer_refuse_a_program(scheme, tmp_path):
    spec = {"residual": {"scheme": scheme}, "program": "0-1,3", "training": False}
    done = request(spec, tmp_path / "none.safetensors")
    assert done.returncode == 2 and scheme in done.stderr, done.stderr
