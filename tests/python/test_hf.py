"""Checkpoints to and from `transformers`: our Llama loads there, and theirs loads here."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dumped import dump
from oracle_schemes import SCHEMES
from paths import call

os.environ["HF_HUB_OFFLINE"] = "1"  # everything here is a local folder
transformers = pytest.importorskip("transformers")
LlamaForCausalLM = transformers.LlamaForCausalLM

TOLERANCE = 1e-4  # of the largest logit, float32 on both sides
LLAMA = dict(vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
             rope_theta=500.0, rms_norm_eps=1e-5, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """Text of many different bytes, long enough for a few batches."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    lines = (f"{n}: {n * n} sheep & {chr(97 + n % 26)}{chr(65 + n % 23)}?\n" for n in range(3000))
    path.write_text("".join(lines))
    return path


def train(out: Path, text: Path, scheme: str, *changes: str) -> Path:
    """Two steps of the tiny preset; the checkpoint's folder."""
    sets = [f"residual.scheme={scheme}", "train.steps=2", "train.precision=fp32", "train.batch=2",
            f"data.train={text}", "optimizer.lr=0.02", "schedule.warmup=0", *changes]
    done = call("wavroute", "train", "tiny", *(f for s in sets for f in ("--set", s)), "--out", out)
    assert done.returncode == 0, done.stderr
    return out / "checkpoints" / "step_2"


def assert_same_logits(llama, out: Path) -> None:
    """`out`: what `wavroute eval --logits` wrote."""
    ours = load_file(out)
    assert ours["ids"].dtype == torch.int64 and ours["logits"].dtype == torch.float32
    assert ours["ids"].unique().numel() > 5
    with torch.no_grad():
        expected = llama.float().eval()(input_ids=ours["ids"]).logits
    assert expected.std() > 0.01
    assert ours["logits"].shape == expected.shape
    assert (ours["logits"] - expected).abs().max() <= TOLERANCE * expected.abs().max()


# --- ours, read by transformers ---------------------------------------------------------------


@pytest.mark.parametrize("kv_heads", [0, 1])
@pytest.mark.parametrize("tie", ["false", "true"])
def test_a_prenorm_checkpoint_is_a_llama(kv_heads, tie, text, tmp_path):
    folder = train(tmp_path / "run", text, "prenorm", f"model.kv_heads={kv_heads}",
                   f"model.tie_embeddings={tie}", "model.rope_theta=300.0",
                   "model.rms_norm_eps=1e-5")
    llama, report = LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert llama.config.tie_word_embeddings == (tie == "true")
    assert llama.config.rope_parameters["rope_theta"] == 300.0
    assert ("lm_head.weight" in load_file(folder / "model.safetensors")) == (tie == "false")
    out = tmp_path / "logits.safetensors"
    done = call("wavroute", "eval", tmp_path / "run", "--data", text, "--logits", out)
    assert done.returncode == 0, done.stderr
    assert_same_logits(llama, out)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_a_function_that_is_llamas_says_llama(scheme, tmp_path):
    config = dump({"residual": {"scheme": scheme}}, tmp_path / "model.safetensors").config
    is_llama = scheme in ("prenorm", "layerdrop")
    assert config["model_type"] == ("llama" if is_llama else "wavroute")
    assert (config["architectures"] == ["LlamaForCausalLM"]) == is_llama
    assert config["residual"]["scheme"] == scheme


def test_transformers_refuses_a_model_whose_routers_it_would_drop(text, tmp_path):
    folder = train(tmp_path / "run", text, "wav")
    with pytest.raises((ValueError, KeyError), match="wavroute"):
        transformers.AutoConfig.from_pretrained(folder)


# --- a folder that transformers wrote, read by us -----------------------------------------------


def llama_folder(folder: Path, **changes):
    """Writes a Llama, and returns it, with weights far from their initial values."""
    llama = LlamaForCausalLM(transformers.LlamaConfig(**(LLAMA | changes)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in llama.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.dim() == 1
            parameter.copy_(1 + 0.3 * noise if is_gain else noise / parameter.shape[-1] ** 0.5)
    llama.save_pretrained(folder, safe_serialization=True)
    return llama


def edit_config(folder: Path, **changes) -> None:
    """Sets fields of config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: v for key, v in config.items() if v is not None}))


def evaluate(folder: Path, text: Path, out: Path):
    return call("wavroute", "eval", folder, "--data", text, "--tokenizer", "bytes", "--logits", out)


@pytest.mark.parametrize("rope", ["rope_parameters", "rope_theta", "default"])
@pytest.mark.parametrize("kv_heads, tie", [(4, False), (2, False), (1, True)])
def test_a_llama_of_transformers_gives_its_logits_here(rope, kv_heads, tie, text, tmp_path):
    folder = tmp_path / "llama"
    theta = 10000.0 if rope == "default" else 500.0
    llama = llama_folder(folder, num_key_value_heads=kv_heads, tie_word_embeddings=tie,
                         rope_theta=theta)
    if rope == "rope_theta":  # as older versions wrote it
        edit_config(folder, rope_parameters=None, rope_theta=theta, rope_scaling=None)
    if rope == "default":  # neither field: 10000
        edit_config(folder, rope_parameters=None)
    done = evaluate(folder, text, tmp_path / "logits.safetensors")
    assert done.returncode == 0, done.stderr
    assert_same_logits(llama, tmp_path / "logits.safetensors")


def test_generation_ends_with_the_models_end_of_text(tmp_path):
    """eos_token_id as `transformers` takes it: an integer or a list, generation_config.json first."""
    folder = tmp_path / "llama"
    llama_folder(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    def generated(*more, **config):
        edit_config(folder, **config)
        done = call("wavroute", "generate", folder, "--tokenizer", "bytes", "--prompt", "the", "-n",
                    40, "--seed", 3, "--temperature", 1, "--precision", "fp32", "--json", *more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    whole = generated(eos_token_id=None)
    text = whole["text"]
    assert whole["tokens"] == 40
    # Two characters that come late for the first time: the first of them ends the text.
    end, later = [c for i, c in enumerate(text) if c.isascii() and i > 3 and text.index(c) == i][:2]
    ended = text[:text.index(end)]
    for value in (ord(end), [ord(later), ord(end)]):
        assert generated(eos_token_id=value)["text"] == ended
    assert generated("--ignore-eos")["text"] == text
    assert generated(eos_token_id=ord(later))["text"] == text[:text.index(later)]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ord(end)}))
    short = generated()
    assert short["text"] == ended and 0 < short["tokens"] < 40


def without(tensors: dict, name: str) -> dict:
    return {key: tensor for key, tensor in tensors.items() if key != name}


NORM, QUERY = "model.norm.weight", "model.layers.1.self_attn.q_proj.weight"
BROKEN_TENSORS = {
    "wrong-shape": (lambda t: t | {QUERY: torch.ones(32, 33)}, QUERY),
    "transposed-shape": (lambda t: t | {"lm_head.weight": torch.ones(32, 256)}, "lm_head.weight"),
    "wrong-type": (lambda t: t | {NORM: torch.ones(32, dtype=torch.int64)}, NORM),
    "missing": (lambda t: without(t, QUERY), QUERY),
    "missing-head-though-untied": (lambda t: without(t, "lm_head.weight"), "lm_head.weight"),
    "unknown": (lambda t: t | {"model.layers.1.extra": torch.ones(3)}, "model.layers.1.extra"),
    "one-layer-too-many": (lambda t: t | {QUERY.replace("1", "2"): torch.ones(32, 32)},
                           "model.layers.2"),
}
UNSUPPORTED_CONFIGS = {
    "rope-scaling": ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0,
                                          "factor": 8.0}}, "llama3"),
    "rope-scaling-of-older-versions": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}},
                                       "rope_scaling"),
    "attention-bias": ({"attention_bias": True}, "q_proj.bias"),
    "mlp-bias": ({"mlp_bias": True}, "mlp_bias"),
    "other-activation": ({"hidden_act": "gelu"}, "hidden_act"),
    "head-width-of-its-own": ({"head_dim": 16}, "head_dim"),
    "other-family": ({"model_type": "mistral"}, "mistral"),
    "unknown-scheme": ({"model_type": "wavroute", "residual": {"scheme": "wavy"}}, "wavy"),
    "heads-that-do-not-divide": ({"num_attention_heads": 5}, "head"),
    "kv-heads-that-do-not-divide": ({"num_key_value_heads": 3}, "head"),
    "no-width": ({"hidden_size": None}, "hidden_size"),
    "width-is-text": ({"hidden_size": "32"}, "hidden_size"),
    "huge-width": ({"hidden_size": 2**62}, "hidden_size"),
    "negative-layers": ({"num_hidden_layers": -1}, "num_hidden_layers"),
}


def assert_refused(done, word: str) -> None:
    """Wrong use: exit 2, one clear message with a hint, no stack trace."""
    assert done.returncode == 2, done.stderr
    assert re.search(r"^wavroute: .+\n(.*\n)*?hint: .+", done.stderr, re.MULTILINE), done.stderr
    assert word in done.stderr, done.stderr
    for trace in ("frame #", "Exception raised from", "terminate called", "c10::", "Traceback"):
        assert trace not in done.stderr, done.stderr


@pytest.mark.parametrize("name", BROKEN_TENSORS)
def test_a_folder_with_a_broken_tensor_is_refused(name, text, tmp_path):
    change, word = BROKEN_TENSORS[name]
    llama_folder(tmp_path / "llama")
    file = tmp_path / "llama" / "model.safetensors"
    save_file(change(load_file(file)), file)
    assert_refused(evaluate(tmp_path / "llama", text, tmp_path / "out"), word)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", UNSUPPORTED_CONFIGS)
def test_a_folder_of_another_architecture_is_refused(name, text, tmp_path):
    changes, word = UNSUPPORTED_CONFIGS[name]
    llama_folder(tmp_path / "llama")
    edit_config(tmp_path / "llama", **changes)
    assert_refused(evaluate(tmp_path / "llama", text, tmp_path / "out"), word)


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused(text, tmp_path):
    llama_folder(tmp_path, vocab_size=100)
    assert_refused(evaluate(tmp_path, text, tmp_path / "out"), "100")


def test_gpt2_is_refused_by_name(text, tmp_path):
    llama_folder(tmp_path)
    transformers.GPT2Config().save_pretrained(tmp_path)
    assert_refused(evaluate(tmp_path, text, tmp_path / "out"), "gpt2")


def test_a_sharded_folder_is_refused_and_says_so(text, tmp_path):
    llama_folder(tmp_path).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    assert_refused(evaluate(tmp_path / "shards", text, tmp_path / "out"), "shard")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("keep", [None, 0, 5, 200])
def test_a_missing_or_truncated_file_is_refused(file, keep, text, tmp_path):
    llama_folder(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if keep is not None:
        (tmp_path / file).write_bytes(content[:keep])
    assert_refused(evaluate(tmp_path, text, tmp_path / "out"), file)


def test_a_folder_that_is_not_there_is_refused(text, tmp_path):
    assert_refused(evaluate(tmp_path / "nowhere", text, tmp_path / "out"), "nowhere")
