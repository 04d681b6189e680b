"""wavroute.nn.ResidualStream: every scheme against the oracle, and under the tools of PyTorch."""

import copy
import pickle

import paths
import pytest

torch = pytest.importorskip("torch")
import oracle  # noqa: E402
from oracle_parameters import make_config, parameter_shapes, random_parameters  # noqa: E402
from stream_models import (  # noqa: E402
    STREAMS,
    WIDTH,
    Net,
    assert_same,
    embedding,
    gradients,
)
from value_cases import CASES  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def wavroute():
    paths.package()
    import wavroute

    return wavroute


def test_every_scheme_of_the_registry_is_here(wavroute):
    from wavroute.nn.residual import _STATES

    names = [scheme["name"] for scheme in wavroute.schemes()]
    assert names == list(_STATES) == list(STREAMS)


# --- values -----------------------------------------------------------------------------------

# Programs are the command's; the draws and schedules of training have tests of their own.
PLAIN = [name for name, case in CASES.items() if "program" not in case]


def configured(name: str) -> dict:
    """The config.json of a case."""
    case = dict(CASES[name])
    residual = dict(case.pop("residual"))
    sizes = {key: case[key] for key in ("layers", "width", "heads", "kv_heads", "hidden", "vocab")
             if key in case}
    config = make_config(residual.pop("scheme"), tie=case.get("tie_embeddings", False), **sizes,
                         **residual)
    if config["residual"]["scheme"] == "block_attnres":
        del config["residual"]["partial_details"]
    config["residual"].pop("freeze", None)
    return config


def decoder(wavroute, config: dict):
    params = random_parameters(config)
    model = wavroute.nn.Decoder(config, seed=1).double().eval()
    model.load_state_dict(params)
    return model, params


def batch(config: dict):
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(config["vocab_size"], (2, 10), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def assert_oracles(model, config, params, *how, **options):
    ids, targets = batch(config)
    output, loss, grads = oracle.gradients(config, params, ids, targets, **options)
    found = model(ids, targets)
    found.backward()
    torch.testing.assert_close(found.detach(), loss + output.auxiliary.detach(), rtol=1e-10, atol=0)
    with torch.no_grad():
        if not how:
            torch.testing.assert_close(model(ids), output.logits.detach(), rtol=1e-9, atol=1e-10)
    for name, parameter in model.named_parameters():
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        apart = (grad - grads[name]).norm()
        assert apart <= 1e-9 * max(grads[name].norm().item(), 1e-4), name


@pytest.mark.parametrize("name", PLAIN)
def test_logits_losses_and_every_gradient_are_the_oracles(wavroute, name):
    config = configured(name)
    model, params = decoder(wavroute, config)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == parameter_shapes(config)
    assert_oracles(model, config, params)


@pytest.mark.parametrize("rescale", [False, True])
def test_layerdrop_leaves_layers_out_in_training_alone(wavroute, rescale):
    config = make_config("layerdrop", p=0.5, schedule="linear", rescale=rescale)
    model, params = decoder(wavroute, config)
    begin = model.residual.begin
    model.train().residual.begin = lambda e: begin(e, kept=[0, 3])
    assert_oracles(model, config, params, "drawn", training=True, layers=[0, 3])
    net, e = Net("layerdrop", p=0.9), embedding()
    torch.manual_seed(0)
    everything = net.eval()(e)
    assert torch.equal(net(e), everything)
    drawn = {net.train()(e).item() for _ in range(8)}
    assert len(drawn) > 1 and everything.item() not in drawn


def test_a_frozen_gate_is_open(wavroute):
    net, e = Net("gated"), embedding()
    gated = net(e)
    net.residual.frozen = True
    plain = Net("prenorm")
    plain.load_state_dict({n: v for n, v in net.state_dict().items() if "_gate." not in n})
    assert torch.equal(net(e), plain(e)) and not torch.equal(net(e), gated)


@pytest.mark.parametrize("scheme", STREAMS)
def test_a_read_with_its_norm_is_the_read_and_then_the_norm(scheme):
    fused, apart = Net(scheme).double().eval(), Net(scheme, normed=False).double().eval()
    assert_same(gradients(apart, embedding(torch.double)),
                gradients(fused, embedding(torch.double)), 1e-11)


@pytest.mark.parametrize("scheme", STREAMS)
def test_float_on_our_kernels_is_near_double(scheme):
    net = Net(scheme).eval()
    found = gradients(net, embedding())
    value, expected = gradients(copy.deepcopy(net).double(), embedding(torch.double))
    assert abs(found[0].double() - value) <= 1e-5 * max(1, value.abs())
    for name, grad in expected.items():
        assert (found[1][name].double() - grad).norm() <= 3e-5 * max(grad.norm().item(), 1e-2), name


def test_a_norm_with_an_eps_of_its_own(wavroute):
    for scheme in ("prenorm", "wav"):
        net, e = Net(scheme), embedding()
        s = net.residual.begin(e)
        s.read(0), s.write(0, e)
        gain = torch.linspace(1, 2, WIDTH)
        h = s.read(1)
        expected = torch.nn.functional.rms_norm(h, gain.shape, gain, 0.5)
        torch.testing.assert_close(s.read(1, norm=gain, eps=0.5), expected)


# --- initial values ---------------------------------------------------------------------------


def test_a_seed_gives_the_same_values_to_what_two_schemes_share(wavroute):
    models = [wavroute.nn.Decoder(configured(name), seed=4) for name in ("prenorm", "wav-K4")]
    plain, routed = (dict(model.named_parameters()) for model in models)
    assert plain.keys() < routed.keys()
    assert all(torch.equal(value, routed[name]) for name, value in plain.items())
    torch.manual_seed(1)
    one = wavroute.nn.ResidualStream("gated", layers=2, width=64)
    torch.manual_seed(1)
    other = wavroute.nn.ResidualStream("gated", layers=2, width=64)
    name = "model.layers.0.self_attn_gate.fc1.weight"
    assert torch.equal(one.value(name), other.value(name)) and one.value(name).std() > 0.01
    assert other.value("model.layers.1.mlp_gate.fc2.bias").item() == 4


# --- roles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", STREAMS)
def test_pairs_named_by_their_roles_are_layers(scheme):
    by_layers, by_roles = Net(scheme), Net(scheme, roles=["attention", "mlp"] * 4)
    assert by_layers.state_dict().keys() == by_roles.state_dict().keys()
    assert torch.equal(by_layers.eval()(embedding()), by_roles.eval()(embedding()))


@pytest.mark.parametrize("scheme", STREAMS)
def test_a_stream_of_three_roles_learns_in_each_of_them(scheme):
    net = Net(scheme, roles=["attention", "cross_attention", "mlp"] * 2 + ["attention", "mlp"])
    net.eval()
    assert net.residual.layers == 3
    _, grads = gradients(net, embedding())
    assert all(grads[f"weights.{i}"].norm() > 0 for i in range(8))


@pytest.mark.parametrize("role, sign", [("attention", 1), ("cross_attention", 1), ("mlp", -1)])
def test_cross_attention_has_the_phase_of_attention(wavroute, role, sign):
    roles = ["attention", "mlp", "attention", role]
    if role == "attention":
        roles = ["attention", "mlp", "attention", "attention"]
    residual = wavroute.nn.ResidualStream("wav", roles=roles, width=WIDTH, blocks=1,
                                          details=["phase"], beta=60.0)
    # With beta = 60 the read-out is the matched phase alone.
    e = embedding().detach()
    s, updates = residual.begin(e), [torch.randn_like(e) for _ in roles]
    for i, u in enumerate(updates):
        s.read(i)
        s.write(i, u)
    phase = updates[0] - updates[1] + updates[2] + sign * updates[3]
    cosine = torch.cosine_similarity(s.read_out(), phase, -1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


# --- under the tools of PyTorch ---------------------------------------------------------------


@pytest.mark.parametrize("scheme", STREAMS)
def test_it_compiles_without_a_graph_break(scheme):
    # Of the others' states some have the same operators, all have been traced by "eager".
    backend = "aot_eager" if scheme in ("prenorm", "gated", "act", "wav") else "eager"
    net = Net(scheme, layers=2).eval()
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    assert_same(gradients(net, embedding(), compiled), gradients(net, embedding()), 1e-5)


@pytest.mark.parametrize("scheme", STREAMS)
def test_functional_calls_and_per_sample_gradients(scheme):
    net, e = Net(scheme).eval(), embedding()
    values = {name: value.detach() for name, value in net.named_parameters()}

    def call(values, e):
        return torch.func.functional_call(net, values, (e,))

    found = torch.func.grad(call)(values, e.detach())
    value, expected = gradients(net, e)
    assert_same((value, found), (value, {n: g for n, g in expected.items() if n != "e"}), 1e-5)
    single = torch.vmap(torch.func.grad(call), in_dims=(None, 0))(values, e.detach().unsqueeze(1))
    for name, grads in single.items():
        one = torch.func.grad(call)(values, e.detach()[1:])[name]
        torch.testing.assert_close(grads[1], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", STREAMS)
def test_checkpointed_sublayers_have_the_same_gradients(scheme):
    plain, checkpointed = Net(scheme).eval(), Net(scheme, checkpointed=True).eval()
    assert_same(gradients(checkpointed, embedding()), gradients(plain, embedding()), 0)


@pytest.mark.parametrize("scheme", STREAMS)
def test_under_autocast_sublayers_read_bf16_from_a_float_stream(scheme):
    net = Net(scheme).eval()
    expected = gradients(net, embedding())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = net.residual.begin(embedding())
        assert s.read(0, norm=net.gains[0]).dtype == torch.bfloat16
        assert s.read(0).dtype == torch.float32
        found = gradients(net, embedding())
    assert abs(found[0].double() - expected[0]) <= 0.03 * expected[0].abs() + 0.5
    for name, grad in found[1].items():
        assert grad.dtype == torch.float32
        assert (grad - expected[1][name]).norm() <= 0.1 * expected[1][name].norm() + 0.1, name


@pytest.mark.parametrize("scheme", STREAMS)
def test_copies_pickles_and_states_are_the_same_stream(scheme):
    net = Net(scheme).eval()
    value = net(embedding())
    fresh = Net(scheme).eval()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(1)
    fresh.load_state_dict(net.state_dict())
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), fresh):
        assert torch.equal(other(embedding()), value)
    with torch.no_grad():  # a copy has parameters of its own
        copied = copy.deepcopy(net)
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(net(embedding()), value)


def test_float64_gradcheck_of_the_operators():
    from wavroute._library import ops

    def value(*sizes):
        generator = torch.Generator().manual_seed(sum(sizes) + len(sizes))
        return torch.randn(*sizes, generator=generator, dtype=torch.double).requires_grad_()

    h, u, vector = value(3, 4), value(3, 4), value(4)
    assert torch.autograd.gradcheck(
        lambda *given: ops.add_norm(*given, 0.5, vector, 1e-5)[:2], (h, u, value(4) + 1))

    def mixed(a, b, query, bias):
        scalars = [ops.source_scalars(row.detach(), None, 1e-5, 1e-12) for row in (a, b)]
        ratio, inverse = (torch.stack(parts) for parts in zip(*scalars))
        o, m, s, _ = ops.route_mix([a, b], ratio, inverse, query, bias)
        # The peak is a constant for the gradient: o / s and log s + m have none of it.
        return o / s.unsqueeze(-1), s.log() + m

    assert torch.autograd.gradcheck(mixed, (h, u + 1, value(2, 4), value(2, 2)))

    def read(u, part, mixed, query, gain):
        peak, mass, bias = torch.zeros(3).double(), torch.ones(3).double(), torch.zeros(1).double()
        return ops.route_read(u, 0, [part], [0], mixed, peak, mass, query, bias, gain, 1e-5,
                              1e-12)[:2]

    assert torch.autograd.gradcheck(read, (u, h, value(3, 4), vector, value(4)))
    assert torch.autograd.gradcheck(
        lambda u, part: ops.route_finish(u, 1, [part, None], [0, 1], 1e-5, 1e-12)[0], (u, h))


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given, words", [
    ({"scheme": "wave", "layers": 4}, "given 'wave' (did you mean 'wav'?)"),
    ({"scheme": "wav", "layers": 4, "block": 2}, "given 'block' (did you mean 'blocks'?)"),
    ({"scheme": "wav", "layers": 4, "blocks": 3}, "the nearest valid counts at 4 layers: 2, 4"),
    ({"scheme": "wav", "layers": 4, "blocks": "two"}, "expected an integer or \"auto\""),
    ({"scheme": "wav", "layers": 0}, "expected at least 1 layer, given 0"),
    ({"scheme": "wav"}, "expected either layers or roles, given neither"),
    ({"scheme": "wav", "layers": 4, "roles": ["mlp"]}, "given both"),
    ({"scheme": "prenorm", "roles": ["mlps"]}, "given 'mlps', as roles[0]"),
    ({"scheme": "wav", "roles": ["attention", "mlp", "mlp"]}, "an even number of sublayers"),
    ({"scheme": "gated", "layers": 4, "windows": object()}, "expected options of numbers"),
])
def test_what_can_not_be_built(wavroute, given, words):
    with pytest.raises(ValueError) as error:
        wavroute.nn.ResidualStream(width=WIDTH, **given)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_calls_out_of_order_say_what_was_expected(wavroute):
    residual = wavroute.nn.ResidualStream("wav", layers=2, width=WIDTH)
    e = embedding()
    with pytest.raises(ValueError, match=r"expected an embedding \[B, T, 8\], given \[2, 5, 9\]"):
        residual.begin(torch.zeros(2, 5, 9))
    s = residual.begin(e)
    for call, given in ((lambda: s.read(1), "read(1)"), (lambda: s.write(2, e), "write(2)"),
                        (s.read_out, "read_out()")):
        with pytest.raises(ValueError) as error:
            call()
        assert f"expected read(0) or write(0), given {given}" in str(error.value)
    with pytest.raises(ValueError, match=r"expected a norm's gain \[8\], given \[3\]"):
        s.read(0, norm=torch.ones(3))
    with pytest.raises(ValueError, match=r"expected an update \[2, 5, 8\], given \[2, 8\]"):
        s.write(0, torch.zeros(2, 8))
    s.write(0, e)
    with pytest.raises(ValueError, match=r"expected read\(1\) before write\(1\)"):
        s.write(1, e)
    with pytest.raises(ValueError, match="expected kept with layerdrop alone"):
        residual.begin(e, kept=[0])


# --- the page ---------------------------------------------------------------------------------


def test_the_code_of_the_page_runs(wavroute, capsys):
    lines = (paths.REPOSITORY / "docs" / "python.md").read_text().splitlines()
    code = "\n".join(line[4:] if line.startswith("    ") else "" for line in lines)
    exec(compile(code, "docs/python.md", "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out
    assert "did you mean 'blocks'?" in printed and "'blocks': 3" in printed
