"""wavroute.nn.Decoder, load, inspect and compare, against the command on runs that it trained."""

import json
import math

import paths
import pytest
from cli_tools import assert_ok, sets, write_project

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402
from stream_models import STREAMS  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def wavroute():
    paths.package()
    import wavroute

    return wavroute


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def trained(project):
    """scheme -> a run of 2 steps, made once."""
    runs = {}

    def run(scheme):
        if scheme not in runs:
            runs[scheme] = project.parent / scheme
            assert_ok(paths.call(
                "wavroute", "train", project, "--out", runs[scheme], "-q",
                *sets(residual__scheme=scheme, train__steps=2, train__eval_every=2,
                      train__save_every=2, optimizer__lr=0.02)))
        return runs[scheme]

    return run


@pytest.mark.parametrize("scheme", STREAMS)
def test_a_loaded_run_has_the_commands_logits(wavroute, project, trained, scheme):
    model = wavroute.load(trained(scheme))
    file = project.parent / f"{scheme}.safetensors"
    assert_ok(paths.call("wavroute", "eval", trained(scheme), "--data",
                         project.parent / "valid.txt", "--tokens", 64, "--logits", file))
    expected = load_file(file)
    with torch.no_grad():
        logits = model(expected["ids"])
    assert (logits - expected["logits"]).abs().max() <= 1e-5
    assert not model.training and model.config["residual"]["scheme"] == scheme


def test_load_takes_runs_checkpoints_and_exported_folders(wavroute, trained, tmp_path):
    run = trained("prenorm")
    checkpoint, = (folder for folder in (run / "checkpoints").iterdir() if folder.is_dir())
    ids = torch.arange(8).view(1, 8)
    expected = wavroute.load(run)(ids)
    assert torch.equal(wavroute.load(checkpoint)(ids), expected)
    assert torch.equal(wavroute.load(run, 2)(ids), expected)
    transformers = pytest.importorskip("transformers")
    llama = transformers.LlamaForCausalLM.from_pretrained(checkpoint)
    torch.testing.assert_close(llama(ids).logits, expected, rtol=1e-4, atol=1e-5)
    llama.save_pretrained(tmp_path / "llama")
    again = wavroute.load(tmp_path / "llama")
    assert torch.equal(again(ids), expected) and again.tokenizer is None


def test_a_tied_llama_with_scaled_rope_and_biases(wavroute, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=31, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=24, tie_word_embeddings=True, attention_bias=True,
        head_dim=6, max_position_embeddings=64, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
                         "original_max_position_embeddings": 16})
    llama = transformers.LlamaForCausalLM(config).eval()
    llama.save_pretrained(tmp_path)
    model, ids = wavroute.load(tmp_path), torch.arange(20).view(1, 20)
    with torch.no_grad():
        torch.testing.assert_close(model(ids), llama(ids).logits, rtol=1e-4, atol=1e-5)


def test_the_tokenizer_of_a_run(wavroute, project, trained):
    tokenizer = wavroute.load(trained("wav")).tokenizer
    text = "the cat sat"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(torch.tensor(tokenizer.encode(text))) == text
    with pytest.raises(ValueError, match=r"given U\+0023"):
        tokenizer.encode("#")


@pytest.mark.parametrize("scheme", ["wav", "gated", "act"])
def test_inspect_has_the_commands_numbers(wavroute, project, trained, scheme):
    model = wavroute.load(trained(scheme))
    done = paths.call("wavroute", "inspect", trained(scheme), "--data",
                      project.parent / "valid.txt", "--tokens", 32, "--context", 16, "--json")
    expected = json.loads(assert_ok(done))
    ids = model.tokenizer.encode((project.parent / "valid.txt").read_text())
    found = wavroute.inspect(model, torch.tensor([ids[:17], ids[16:33]]))
    same = set(found.document) & set(expected)
    assert {"sublayers", "depth_mixing", "tokens", "loss", "depth"} <= same
    assert_near({key: found.document[key] for key in same}, {key: expected[key] for key in same})
    readers = len(expected["sublayers"])
    assert found.depth_mixing.shape == (readers, readers) and found.update.shape == (readers - 1,)
    assert math.isclose(found.loss, found.loss_if_last[-1])
    assert found.depth_mixing[2, 1].item() == found.document["depth_mixing"][2][1]
    assert bool(found.entropy.isnan().all()) == (scheme != "wav")
    assert bool(found.gate.isnan().all()) == (scheme != "gated")


def assert_near(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_near(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_near(one, other)
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-7)
    else:
        assert found == expected


def test_inspect_sees_the_models_present_values(wavroute, trained):
    model, ids = wavroute.load(trained("wav")), torch.arange(10).view(1, 10)
    before = wavroute.inspect(model, ids)
    with torch.no_grad():
        model.residual.value("model.output_attn_res_bias").fill_(9.0)
    after = wavroute.inspect(model, ids)
    assert after.details[-1] > 0.9 > before.details[-1]
    with pytest.raises(ValueError, match=r"expected ids \[B, T \+ 1\], given \[10\]"):
        wavroute.inspect(model, ids[0])
    with pytest.raises(ValueError):
        wavroute.inspect(model, ids + 1000)
    with pytest.raises(TypeError, match="expected a wavroute.nn.Decoder, given Linear"):
        wavroute.inspect(torch.nn.Linear(2, 2), ids)


def test_compare_gives_rows_that_tables_take(wavroute, project, tmp_path):
    grid = project.parent / "grid.toml"
    grid.write_text('extends = "small.toml"\n[compare]\nschemes = ["prenorm", "wav"]\nseeds = [1]\n'
                    "wider_baseline = false\n")
    made = wavroute.compare(grid, out=tmp_path / "grid",
                            overrides={"train.steps": 2, "train.eval_every": 1})
    assert [row["scheme"] for row in made] == ["prenorm", "wav"] and len(made) == 2
    assert all(not isinstance(value, dict) for row in made for value in row.values())
    assert len(made.cells) == 2 and made.cells[0]["val_loss"] > 0
    again = wavroute.compare(tmp_path / "grid")
    assert list(again) == list(made) and again.document == made.document
    with pytest.raises(ValueError, match="expected a folder with compare.json"):
        wavroute.compare(project.parent)
    with pytest.raises(ValueError, match="expected out, the folder of the comparison"):
        wavroute.compare(grid)
    with pytest.raises(ValueError, match="residual.bloks"):
        wavroute.compare(grid, out=tmp_path / "none", overrides={"residual.bloks": 2})


@pytest.mark.parametrize("change, words", [
    ({"hidden_size": 15}, "num_attention_heads"),
    ({"residual": {"scheme": "wave"}}, "did you mean 'wav'"),
    ({"residual": "wav"}, "expected an object 'residual'"),
    ({"residual": {"scheme": "wav", "blocks": 3}}, "the nearest valid counts"),
])
def test_a_configuration_that_can_not_be(wavroute, change, words):
    config = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2,
              "num_attention_heads": 2, "intermediate_size": 24}
    assert wavroute.nn.Decoder(config)(torch.arange(4).view(1, 4)).shape == (1, 4, 31)
    with pytest.raises(ValueError) as error:
        wavroute.nn.Decoder(config | change)
    assert words in str(error.value)


def test_what_can_not_be_loaded(wavroute, tmp_path):
    with pytest.raises(ValueError, match="where nothing is"):
        wavroute.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="given"):
        wavroute.load(tmp_path)
