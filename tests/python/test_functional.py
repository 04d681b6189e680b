"""The operators in Python: schemas, fake tensors, autograd and the compiler agree."""

import paths
import pytest

torch = pytest.importorskip("torch")

TOKENS, WIDTH, ROUTERS = 5, 8, 3
NORM_EPS, MATCHING_EPS = 1e-5, 1e-12


@pytest.fixture(scope="module")
def ops():
    paths.package()
    from wavroute._library import ops
    return ops


def values(*sizes, dtype=torch.float32, grad=True):
    generator = torch.Generator().manual_seed(sum(sizes) + len(sizes))
    return torch.randn(*sizes, generator=generator).to(dtype).requires_grad_(grad)


def sources(ops, dtype):
    rows = [values(TOKENS, WIDTH, dtype=dtype) for _ in range(2)]
    scalars = [ops.source_scalars(row.detach(), None, NORM_EPS, MATCHING_EPS) for row in rows]
    return rows, torch.stack([s[0] for s in scalars]), torch.stack([s[1] for s in scalars])


def arguments(ops, name, dtype):
    """Calls of an operator that together have and lack every optional argument."""
    u = values(TOKENS, WIDTH, dtype=dtype)
    h, vector = values(TOKENS, WIDTH), values(WIDTH)
    if name == "add_norm":
        return [(h, u, vector, 0.5, vector, NORM_EPS), (h, u, None, 1.0, None, NORM_EPS),
                (h, None, None, 1.0, vector, NORM_EPS, dtype)]
    if name == "source_scalars":
        u = u.detach()  # opcheck asks for a gradient where an argument may have one
        return [(u, u, NORM_EPS, MATCHING_EPS), (u, None, NORM_EPS, MATCHING_EPS)]
    if name == "route_mix":
        rows, ratio, inverse = sources(ops, dtype)
        return [(rows, ratio, inverse, values(ROUTERS, WIDTH), values(ROUTERS, 2))]
    if name == "route_read":
        finished = (h, values(TOKENS, grad=False), values(TOKENS).detach().abs() + 1)
        rest = (vector, values(3), vector, NORM_EPS, MATCHING_EPS)
        parts = [values(TOKENS, WIDTH) for _ in range(4)]
        return [(u, 3, parts, [0, 1, 2], *finished, *rest),
                (u, 1, [*parts[:1], None, None, None], [0, 1, 2], *finished, *rest),
                (None, 0, [], [], *finished, vector, values(0), None, NORM_EPS, MATCHING_EPS,
                 dtype)]
    parts = [values(TOKENS, WIDTH), None]
    return [(u, 1, parts, [0, 1], NORM_EPS, MATCHING_EPS),
            (None, 0, parts, [0, 1], NORM_EPS, MATCHING_EPS)]


NAMES = ["add_norm", "source_scalars", "route_mix", "route_read", "route_finish"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_schema_fake_tensor_autograd_and_aot_dispatch_agree(ops, name, dtype):
    for given in arguments(ops, name, dtype):
        torch.library.opcheck(getattr(ops, name).default, given)


def backward_arguments(ops, dtype):
    """Calls of the backward operators on what the forward ones keep."""
    calls = []
    with torch.no_grad():
        for given in arguments(ops, "add_norm", dtype):
            h, u, scale, coefficient, gain, eps, *_ = given
            h_out, x, inverse = ops.add_norm(*given)
            calls.append(("add_norm_backward",
                          (h_out, x, h_out, inverse if gain is not None else None, u, scale,
                           coefficient, gain, dtype, [u is not None, scale is not None, True])))
        for given in arguments(ops, "route_mix", dtype):
            mixed, peak, mass, logits = ops.route_mix(*given)
            calls.append(("route_mix_backward", (mixed, mass, *given, peak, logits)))
        for u, part, parts, forms, mixed, peak, mass, query, bias, gain, *eps in arguments(
                ops, "route_read", dtype):
            out, x, h, inverse, lse, running = ops.route_read(
                u, part, parts, forms, mixed, peak, mass, query, bias, gain, *eps)
            seen = list(parts)
            if u is not None:
                seen[part] = out
            calls.append(("route_read_backward",
                          (out if u is not None else None, x, seen, part if u is not None else -1,
                           forms, h if gain is not None else x,
                           inverse if gain is not None else None, peak, lse, running, query, bias,
                           gain)))
        grads = [values(TOKENS, WIDTH), values(TOKENS, WIDTH)]
        calls.append(("route_finish_backward", (grads, [0, 1], [0, 1], 1, dtype)))
    def detached(argument):
        if isinstance(argument, list):
            return [detached(each) for each in argument]
        return argument.detach() if isinstance(argument, torch.Tensor) else argument

    return [(name, tuple(map(detached, given))) for name, given in calls]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_schema_and_fake_tensor_of_the_backward_operators_agree(ops, dtype):
    for name, given in backward_arguments(ops, dtype):
        torch.library.opcheck(getattr(ops, name).default, given,
                              test_utils=["test_schema", "test_faketensor"])


def block(ops, e, w, query, bias, running_bias, gain):
    """Two sublayers of a block over e, and the read-out."""
    ratio, inverse = ops.source_scalars(e, None, NORM_EPS, MATCHING_EPS)
    mixed, peak, mass, _ = ops.route_mix([e], ratio[None], inverse[None], query, bias)
    parts = [None, None]
    x = ops.add_norm(e, None, None, 1.0, gain, NORM_EPS)[1]
    for i, (o, m, s) in enumerate(zip(mixed.unbind(), peak.unbind(), mass.unbind())):
        read = ops.route_read(torch.tanh(x @ w), i, parts, [0, 1], o, m, s, query[i], running_bias,
                              gain, NORM_EPS, MATCHING_EPS)
        parts[i], x = read[0], read[1]
    rows, _, _ = ops.route_finish(None, 0, parts, [0, 1], NORM_EPS, MATCHING_EPS)
    return x + rows[0] - rows[1]


def leaves():
    """Arguments of block()."""
    return [values(TOKENS, WIDTH), values(WIDTH, WIDTH), values(2, WIDTH), values(2, 1), values(2),
            values(WIDTH)]


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_step_is_the_eager_one(ops, dynamic):
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    eager_leaves, compiled_leaves = leaves(), leaves()
    expected, actual = block(ops, *eager_leaves), compiled(ops, *compiled_leaves)
    torch.testing.assert_close(actual, expected)
    expected.square().sum().backward()
    actual.square().sum().backward()
    for one, other in zip(compiled_leaves, eager_leaves):
        assert other.grad.abs().max() > 0
        torch.testing.assert_close(one.grad, other.grad)


def test_the_backward_graph_compiles_too(ops):
    eager_leaves, compiled_leaves = leaves(), leaves()
    block(ops, *eager_leaves).square().sum().backward()
    compiler = torch.compile(backend="aot_eager")
    with torch._dynamo.compiled_autograd._enable(compiler):
        block(ops, *compiled_leaves).square().sum().backward()
    for one, other in zip(compiled_leaves, eager_leaves):
        torch.testing.assert_close(one.grad, other.grad)
