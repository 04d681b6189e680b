"""A foreign config.json is read completely or refused: for every key that LlamaConfig knows, a
value other than its default gives the logits of `transformers`, or exit code 2 and the key's name."""

import dataclasses
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import paths

os.environ["HF_HUB_OFFLINE"] = "1"  # everything here is a local folder
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4  # of the largest logit, float32 on both sides
WIDTH, HIDDEN, LAYERS, HEADS = 32, 48, 2, 4
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 256,
          "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS,
          "num_attention_heads": HEADS, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
          "tie_word_embeddings": False}

YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16, "rope_theta": 1e4}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [2.0, 2.1, 2.2, 2.3], "original_max_position_embeddings": 16}
ROPES = [{"rope_type": "default"}, {"rope_type": "default", "rope_theta": 300.0},
         {"rope_type": "dynamic", "factor": 2.0},
         {"rope_type": "proportional", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
         YARN, LLAMA3, LONGROPE,
         {**YARN, "attention_factor": 0.7, "truncate": False}, {**YARN, "mscale": 0.7,
          "mscale_all_dim": 0.9, "beta_fast": 4.0, "beta_slow": 0.5, "rope_theta": 500.0},
         {**LLAMA3, "factor": 3.0, "original_max_position_embeddings": 64},
         {"rope_type": "linear", "factor": 3.0}]
OLD_ROPES = [{"type": "default"}, {"type": "linear", "factor": 2.0},
             {"rope_type": "default", "rope_theta": 300.0}, {**LLAMA3, "type": "llama3"}]

# Values that change the function, or would if they were read, or that mean nothing.
# tests/config/llama_config_test.cpp has more of the last kind.
SWEEP = {
    "vocab_size": [255], "hidden_size": [16], "intermediate_size": [24, -48],
    "num_hidden_layers": [1, 3, 10**9], "num_attention_heads": [2, 8, 0],
    "num_key_value_heads": [2], "head_dim": [16, 6, 7], "hidden_act": ["swish", "gelu"],
    "max_position_embeddings": [16, "32"], "rms_norm_eps": [1e-2, -1],
    "tie_word_embeddings": [True], "attention_bias": [True], "mlp_bias": [True],
    "rope_parameters": ROPES, "rope_scaling": OLD_ROPES, "rope_theta": [300.0, 0],
    "partial_rotary_factor": [0.5], "quantization_config": [{"quant_method": "gptq", "bits": 4}],
    "sliding_window": [4], "attention_chunk_size": [4],
    "layer_types": [["full_attention"] * 2, ["full_attention", "sliding_attention"]],
    "is_causal": [False], "is_encoder_decoder": [True], "pruned_heads": [{"0": [1]}],
    "per_layer_config": [{"0": {"intermediate_size": 24}}], "initializer_range": [-1],
    "architectures": [["LlamaForSequenceClassification"]], "torch_dtype": ["int8"],
    "add_cross_attention": [True], "tie_encoder_decoder": [True],
}
# Values other than the defaults that leave the logits as they are: all at once.
NEUTRAL = {
    "initializer_range": 0.5, "attention_dropout": 0.25, "pretraining_tp": 2, "use_cache": False,
    "pad_token_id": 3, "bos_token_id": 4, "eos_token_id": [5, 6], "dtype": "bfloat16",
    "torch_dtype": "float16", "transformers_version": "4.28.0", "output_hidden_states": True,
    "return_dict": True, "chunk_size_feed_forward": 7, "id2label": {"0": "a", "1": "b"},
    "label2id": {"a": 0, "b": 1}, "problem_type": "regression", "_name_or_path": "somewhere",
    "head_dim": WIDTH // HEADS, "num_key_value_heads": HEADS, "temperature": 0.6, "do_sample": True,
    "max_length": 20, "tokenizer_class": "LlamaTokenizer", "attention_bias": False,
    "rope_theta": 1e4, "rope_scaling": None, "sliding_window": None,
    "original_max_position_embeddings": 16, "layer_types": ["full_attention"] * LAYERS,
    # Of `transformers` 4 alone.
    "is_decoder": True, "cross_attention_hidden_size": 16, "torchscript": True,
    "use_bfloat16": True, "tf_legacy_loss": True, "finetuning_task": "x", "prefix": "x",
    "task_specific_params": {"x": {}}, "sep_token_id": 7, "decoder_start_token_id": 8,
    "output_attentions": False, "output_scores": True, "return_dict_in_generate": True,
    "min_length": 1, "early_stopping": True, "num_beams": 2, "num_beam_groups": 2,
    "diversity_penalty": 0.5, "top_k": 9, "top_p": 0.9, "typical_p": 0.9,
    "repetition_penalty": 1.1, "length_penalty": 1.2, "no_repeat_ngram_size": 3,
    "encoder_no_repeat_ngram_size": 3, "bad_words_ids": [[7]], "num_return_sequences": 2,
    "forced_bos_token_id": 1, "forced_eos_token_id": 2, "remove_invalid_values": True,
    "exponential_decay_length_penalty": [5, 1.1], "suppress_tokens": [9],
    "begin_suppress_tokens": [9],
}
# What the last `transformers` 4 (4.57) keeps in a Llama's config.json: the arguments of its
# LlamaConfig, of its PretrainedConfig, and the generation parameters that this takes as well.
KEYS_OF_4 = set("""
vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id
eos_token_id pretraining_tp tie_word_embeddings rope_theta rope_scaling attention_bias
attention_dropout mlp_bias head_dim

output_hidden_states output_attentions return_dict torchscript dtype torch_dtype pruned_heads
chunk_size_feed_forward is_encoder_decoder is_decoder cross_attention_hidden_size add_cross_attention
tie_encoder_decoder architectures finetuning_task id2label label2id task_specific_params problem_type
tokenizer_class prefix sep_token_id decoder_start_token_id use_bfloat16 tf_legacy_loss _name_or_path
transformers_version

max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature
top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores return_dict_in_generate
forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty
suppress_tokens begin_suppress_tokens
""".split())


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"{n}: {n * n} sheep & {chr(97 + n % 26)}?\n" for n in range(12)))
    return path


def random_tensors(changes: dict | None = None) -> dict[str, torch.Tensor]:
    """Weights far from their initial values, for a changed width of the heads and biases too."""
    generator = torch.Generator().manual_seed(1)
    changes = changes or {}
    size = changes.get("head_dim", WIDTH // HEADS)
    rows = HEADS * (size if isinstance(size, int) and size > 0 else WIDTH // HEADS)

    def matrix(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    def gain() -> torch.Tensor:
        return 1 + 0.3 * torch.randn(WIDTH, generator=generator)

    tensors = {"model.embed_tokens.weight": matrix(256, WIDTH), "model.norm.weight": gain(),
               "lm_head.weight": matrix(256, WIDTH)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name in "qkv":
            tensors[f"{at}self_attn.{name}_proj.weight"] = matrix(rows, WIDTH)
        tensors[f"{at}self_attn.o_proj.weight"] = matrix(WIDTH, rows)
        for name in "qkvo" if changes.get("attention_bias") is True else "":
            tensors[f"{at}self_attn.{name}_proj.bias"] = gain()[:1].repeat(
                WIDTH if name == "o" else rows) * matrix(WIDTH if name == "o" else rows, 1)[:, 0]
        for name in ("gate", "up"):
            tensors[f"{at}mlp.{name}_proj.weight"] = matrix(HIDDEN, WIDTH)
        tensors[f"{at}mlp.down_proj.weight"] = matrix(WIDTH, HIDDEN)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{name}.weight"] = gain()
    return tensors


def write(folder: Path, changes: dict, tensors: dict | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    save_file(tensors or random_tensors(changes), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def evaluate(folder: Path, text: Path):
    return paths.call("wavroute", "eval", folder, "--data", text, "--tokenizer", "bytes",
                      "--batch", 4, "--tokens", 128, "--logits", folder / "logits.safetensors")


def assert_logits_of_transformers(folder: Path) -> None:
    ours = load_file(folder / "logits.safetensors")
    llama = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = llama(input_ids=ours["ids"]).logits
    assert (ours["logits"] - theirs).abs().max() <= TOLERANCE * theirs.abs().max()


CASES = [(key, value) for key, values in SWEEP.items() for value in values]


@pytest.fixture(scope="module")
def results(text, tmp_path_factory):
    """Every case of the sweep, two at a time: the folder and the output of `wavroute eval`."""
    root = tmp_path_factory.mktemp("sweep")

    def run(number: int):
        key, value = CASES[number]
        folder = write(root / str(number), {key: value})
        return folder, evaluate(folder, text)

    paths.program("wavroute")
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(len(CASES))))


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: f"{CASES[n][0]}-{n}")
def test_a_key_has_its_effect_or_is_refused_by_name(results, number):
    folder, done = results[number]
    if done.returncode == 0:
        assert_logits_of_transformers(folder)
    else:
        assert done.returncode == 2 and "hint: " in done.stderr, done.stderr
        assert CASES[number][0] in done.stderr, done.stderr


def test_the_sweep_has_every_key_of_transformers_4_and_5():
    known = {field.name for field in dataclasses.fields(transformers.LlamaConfig)} | KEYS_OF_4
    assert known <= SWEEP.keys() | NEUTRAL.keys(), known - SWEEP.keys() - NEUTRAL.keys()


def test_what_is_plain_is_not_refused(results):
    plain = {("rope_parameters", 0), ("rope_parameters", 1), ("rope_scaling", 0), ("hidden_act", 0),
             ("rms_norm_eps", 0), ("rope_theta", 0), ("num_attention_heads", 0),
             ("max_position_embeddings", 0), ("layer_types", 0), ("attention_bias", 0),
             ("head_dim", 0), ("rope_scaling", 1), ("rope_scaling", 3)}
    plain |= {("rope_parameters", n) for n, rope in enumerate(ROPES)
              if rope["rope_type"] in ("default", "linear", "yarn", "llama3")}
    accepted = {(key, SWEEP[key].index(value)) for (key, value), (_, done) in zip(CASES, results)
                if done.returncode == 0}
    assert plain <= accepted, plain - accepted


def test_neutral_keys_change_nothing_and_are_not_mentioned(text, tmp_path):
    folder = write(tmp_path / "llama", NEUTRAL)
    done = evaluate(folder, text)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert_logits_of_transformers(folder)


def test_keys_that_nobody_knows_are_named_once(text, tmp_path):
    folder = write(tmp_path / "llama", {"zoom": 3, "clip_qkv\x1b[31m": 8.0})
    done = evaluate(folder, text)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("zoom") == 1 and "not known, ignored" in done.stderr
    assert "clip_qkv" in done.stderr and "\x1b" not in done.stderr
    assert_logits_of_transformers(folder)


def test_number_words_of_python_are_refused_with_file_and_line(text, tmp_path):
    folder = write(tmp_path / "llama", {})
    for number in ("NaN", "Infinity", "1e999"):
        (folder / "config.json").write_text(
            json.dumps(CONFIG, indent=1).replace("1e-05", number))
        done = evaluate(folder, text)
        line = 1 + list(CONFIG).index("rms_norm_eps") + 3  # architectures takes three lines
        assert done.returncode == 2 and f"config.json:{line}" in done.stderr, done.stderr


def test_biases_that_the_configuration_does_not_name_are_refused(text, tmp_path):
    tensors = random_tensors({"attention_bias": True})
    done = evaluate(write(tmp_path / "more", {}, tensors), text)
    assert done.returncode == 2 and "q_proj.bias" in done.stderr, done.stderr
    done = evaluate(write(tmp_path / "fewer", {"attention_bias": True}, random_tensors()), text)
    assert done.returncode == 2 and "q_proj.bias" in done.stderr, done.stderr


def test_tensors_that_say_what_is_computed_anyway_are_read_over(text, tmp_path):
    tensors = random_tensors()
    frequencies = 1e4 ** -(torch.arange(0, 8, 2) / 8)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = frequencies
    folder = write(tmp_path / "llama", {}, tensors)
    assert evaluate(folder, text).returncode == 0
    assert_logits_of_transformers(folder)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = frequencies / 2
    done = evaluate(write(tmp_path / "other", {}, tensors), text)
    assert done.returncode == 2 and "inv_freq" in done.stderr, done.stderr


def test_a_tokenizer_that_contradicts_the_folders_is_refused(text, tmp_path):
    folder = write(tmp_path / "llama", {})
    own = folder / "tokenizer.json"
    for content in ("{}", '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}', "no JSON"):
        own.write_text(content)
        done = evaluate(folder, text)
        assert done.returncode == 2 and str(own) in done.stderr, done.stderr
        assert "--tokenizer" in done.stderr
