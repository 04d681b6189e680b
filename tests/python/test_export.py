"""wavroute export: transformers, llama.cpp and llama2.c's format compute what our model computes,
and what is exported is imported again bit for bit."""

import json
import os
import subprocess
from pathlib import Path

import cli_tools
import paths
import pytest
import torch
from model_files import (SHARED, assert_same_logits, logits_for, small_llama, smollm2, transformers_logits,
                         wavroute_import)
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers")

IDS = [(n * n + 7 * n) % 256 for n in range(40)]
MODEL = """
extends = "base.toml"
[model]
layers = 4
width = 32
heads = 2
kv_heads = 1
hidden = 64
context = 64
rms_norm_eps = 1e-5
[data]
train = "t.txt"
tokenizer = "bytes"
[train]
steps = 1
batch = 1
eval_every = 0
threads = 1
precision = "fp32"
[sample]
tokens = 0
"""
FOLDS = {"prenorm": {}, "layerdrop": {}, "rezero": {}, "layerscale": {},
         "block_layerscale": {"blocks": 4}}
OTHERS = {"gated": {"freeze": 0.0}, "act": {}, "denseformer": {}, "mhc_lite": {"streams": 2},
          "full_attnres": {}, "block_attnres": {"blocks": 4}, "haares": {"blocks": 2},
          "wav": {"blocks": 2}, "rezero_bare": {"scheme": "rezero", "norm": "none"}}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A checkpoint folder of each scheme, with values at which every term has an effect."""
    root, made = tmp_path_factory.mktemp("runs"), {}
    (root / "t.txt").write_text("".join(f"{n}: {n * n} sheep & {chr(97 + n % 26)}?\n"
                                        for n in range(200)))
    (root / "m.toml").write_text(MODEL)

    def checkpoint(name: str, **options: object) -> Path:
        if name in made:
            return made[name]
        options = {"scheme": name} | options
        run = root / name
        done = paths.call("wavroute", "train", root / "m.toml", "--out", run,
                          *cli_tools.sets(**{f"residual__{k}": v for k, v in options.items()}))
        cli_tools.assert_ok(done)
        folder = run / "checkpoints" / "step_1"
        file = folder / "model.safetensors"
        tensors = load_file(file)
        torch.manual_seed(3)
        save_file({key: (value + 0.3 * torch.randn_like(value)).contiguous()
                   for key, value in tensors.items()}, file, metadata={"format": "pt"})
        (folder / "state.json").unlink()  # no longer the run's: a plain folder
        made[name] = folder
        return folder

    return checkpoint


def export(source: Path, out: Path, form: str, *flags: object):
    done = paths.call("wavroute", "export", source, "--format", form, "--out", out, *flags,
                      timeout=600)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("scheme", FOLDS)
def test_what_folds_into_a_llama_is_one(scheme, checkpoints, tmp_path):
    source = checkpoints(scheme, **FOLDS[scheme])
    export(source, tmp_path / "hf", "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["model_type"] == "llama" and "residual" not in config
    assert_same_logits(transformers_logits(tmp_path / "hf", IDS),
                       logits_for(source, IDS, tmp_path))


@pytest.mark.parametrize("scheme", OTHERS)
def test_every_other_scheme_runs_with_its_modelling_file(scheme, checkpoints, tmp_path):
    source = checkpoints(scheme, **OTHERS[scheme])
    export(source, tmp_path / "hf", "hf")
    theirs = transformers_logits(tmp_path / "hf", IDS, trust_remote_code=True)
    assert_same_logits(theirs, logits_for(source, IDS, tmp_path))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", trust_remote_code=True, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer.encode("a sheep") == list(b"a sheep")
    prompt = torch.tensor([IDS[:9], IDS[9:18]])
    with_cache, without = (model.generate(prompt, attention_mask=torch.ones_like(prompt),
                                          max_new_tokens=12, do_sample=False, use_cache=cache,
                                          pad_token_id=0)
                           for cache in (True, False))
    assert torch.equal(with_cache, without)


BEAMS = {"gated": OTHERS["gated"], "wav": OTHERS["wav"], "act": {}}


@pytest.mark.parametrize("scheme", BEAMS)
def test_beams_with_a_cache_are_those_without(scheme, checkpoints, tmp_path):
    export(checkpoints(scheme, **BEAMS[scheme]), tmp_path / "hf", "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", trust_remote_code=True, dtype=torch.float32).eval()
    for prompt in torch.tensor([IDS[:9], IDS[9:18], IDS[18:27]]):
        with_cache, without = (
            model.generate(prompt[None], attention_mask=torch.ones(1, 9), max_new_tokens=16,
                           do_sample=False, num_beams=4, num_return_sequences=4,
                           output_scores=True, return_dict_in_generate=True, use_cache=cache,
                           pad_token_id=0)
            for cache in (True, False))
        assert torch.equal(with_cache.sequences, without.sequences)
        assert torch.allclose(with_cache.sequences_scores, without.sequences_scores, atol=1e-5)


def test_a_cache_that_keeps_the_last_rows_alone_refuses_to_be_cropped(checkpoints, tmp_path):
    export(checkpoints("gated", **OTHERS["gated"]), tmp_path / "hf", "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", trust_remote_code=True, dtype=torch.float32).eval()
    cache = transformers.DynamicCache()
    model(torch.tensor([IDS[:9]]), past_key_values=cache)
    with pytest.raises(ValueError, match="cannot be cropped"):
        cache.crop(-1)
    # Emptied, it serves another text.
    cache.reset()
    again = model(torch.tensor([IDS[:9]]), past_key_values=cache).logits
    assert torch.equal(again, model(torch.tensor([IDS[:9]]), use_cache=False).logits)


def test_padding_on_the_left_changes_no_token(checkpoints, tmp_path):
    for scheme in ("gated", "wav"):
        export(checkpoints(scheme, **OTHERS[scheme]), tmp_path / scheme, "hf")
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / scheme, trust_remote_code=True, dtype=torch.float32).eval()
        plain = model.generate(torch.tensor([IDS[:9]]), attention_mask=torch.ones(1, 9),
                               max_new_tokens=8, do_sample=False, pad_token_id=0)
        padded = model.generate(torch.tensor([[0] * 5 + IDS[:9]]),
                                attention_mask=torch.tensor([[0] * 5 + [1] * 9]),
                                max_new_tokens=8, do_sample=False, pad_token_id=0)
        assert torch.equal(plain[0, 9:], padded[0, 14:])


# ---- round trips ------------------------------------------------------------------------------

def assert_same_model(folder: Path, other: Path) -> None:
    ours, theirs = (load_file(path / "model.safetensors") for path in (folder, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("form", ["hf", "gguf", "llama2c"])
@pytest.mark.parametrize("tied", [True, False])
def test_what_was_exported_is_imported_bit_for_bit(form, tied, tmp_path):
    source = small_llama(tmp_path / "source", tie_word_embeddings=tied, num_key_value_heads=1)
    (source / "tokenizer.json").write_text(bytes_tokenizer(tmp_path))
    wavroute_import(source, tmp_path / "model")
    out = tmp_path / {"hf": "hf", "gguf": "m.gguf", "llama2c": "m.bin"}[form]
    export(tmp_path / "model", out, form)
    wavroute_import(out, tmp_path / "again")
    assert_same_model(tmp_path / "model", tmp_path / "again")
    before, after = (json.loads((tmp_path / name / "config.json").read_text())
                     for name in ("model", "again"))
    for key in ("eos_token_id", "bos_token_id"):
        before.pop(key), after.pop(key)
    if form != "llama2c":
        assert before == after
        assert (tmp_path / "model" / "tokenizer.json").read_text() == \
            (tmp_path / "again" / "tokenizer.json").read_text()


def bytes_tokenizer(scratch: Path) -> str:
    """The tokenizer.json of bytes, as our own models have it."""
    cli_tools.assert_ok(paths.call("write_tokenizer", "bytes", "-", scratch / "bytes.json"))
    return (scratch / "bytes.json").read_text()


@pytest.mark.parametrize("scaling", ["linear", "llama3", "yarn"])
def test_a_gguf_keeps_scaling_biases_and_heads_of_their_own_width(scaling, tmp_path):
    rope = {"rope_type": scaling, "factor": 4.0, "rope_theta": 1e4}
    if scaling != "linear":
        rope["original_max_position_embeddings"] = 64
    if scaling == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if scaling == "yarn":
        rope |= {"attention_factor": 1.25}
    source = small_llama(tmp_path / "source", rope_parameters=rope, attention_bias=True,
                         head_dim=16, num_key_value_heads=1)
    (source / "tokenizer.json").write_text(bytes_tokenizer(tmp_path))
    wavroute_import(source, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "m.gguf", "gguf")
    wavroute_import(tmp_path / "m.gguf", tmp_path / "again")
    assert_same_model(tmp_path / "model", tmp_path / "again")
    assert_same_logits(logits_for(tmp_path / "again", IDS, tmp_path),
                       transformers_logits(source, IDS))


# ---- types ------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_gguf_reads_what_we_write(kind, checkpoints, tmp_path):
    gguf = pytest.importorskip("gguf")
    source = checkpoints("prenorm")
    export(source, tmp_path / "m.gguf", "gguf", "--type", kind)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert reader.fields["general.architecture"].contents() == "llama"
    values = load_file(source / "model.safetensors")
    named = {tensor.name: tensor for tensor in reader.tensors}
    for ours, name in (("model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight"),
                       ("model.embed_tokens.weight", "token_embd.weight"),
                       ("model.norm.weight", "output_norm.weight")):
        tensor = named[name]
        rows = values[ours].numpy()
        wanted = gguf.GGMLQuantizationType["F32" if rows.ndim == 1 else kind.upper()]
        assert tensor.tensor_type == wanted, name
        # Bit for bit what the library itself writes.
        assert (tensor.data.view("uint8") == gguf.quantize(rows, wanted).view("uint8")).all(), name


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_a_folder_holds_the_type_that_was_asked_for(kind, checkpoints, tmp_path):
    source = checkpoints("prenorm")
    export(source, tmp_path / "hf", "hf", "--type", kind)
    wanted = {"f16": torch.float16, "bf16": torch.bfloat16}[kind]
    ours = load_file(tmp_path / "hf" / "model.safetensors")
    for name, value in load_file(source / "model.safetensors").items():
        assert torch.equal(ours[name], value.to(wanted)), name


# ---- llama.cpp --------------------------------------------------------------------------------

SCRIPT = """
import {getLlama} from "node-llama-cpp";
const [file, prompt, count] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: file});
const context = await model.createContext({contextSize: 512, threads: 1});
const found = [];
for await (const token of context.getSequence().evaluate(JSON.parse(prompt), {temperature: 0})) {
  found.push(token);
  if (found.length >= Number(count)) break;
}
console.log(JSON.stringify({tokens: found, text: model.tokenize("a sheep, 42!").map(Number)}));
process.exit(0);
"""


def llama_cpp(file: Path, prompt: list[int], count: int, scratch: Path) -> dict:
    """What llama.cpp says; skips without it. WAVROUTE_NODE_LLAMA: a folder with a node_modules that
    has node-llama-cpp."""
    folder = os.environ.get("WAVROUTE_NODE_LLAMA")
    if not folder:
        pytest.skip("no llama.cpp: npm install node-llama-cpp@3.22.1 in a folder, and "
                    "WAVROUTE_NODE_LLAMA=the folder")
    (Path(folder) / "wavroute-check.mjs").write_text(SCRIPT)
    done = subprocess.run(["node", "wavroute-check.mjs", str(file), json.dumps(prompt), str(count)],
                          cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def greedy(folder: Path, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """Our function's greedy tokens, by transformers in fp32, and how far the two best lie apart."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids, gaps = list(prompt), []
    with torch.no_grad():
        for _ in range(count):
            best = model(torch.tensor([ids])).logits[0, -1].topk(2)
            gaps.append((best.values[0] - best.values[1]).item())
            ids.append(best.indices[0].item())
    return ids[len(prompt):], gaps


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_llama_cpp_continues_with_our_tokens(kind, tmp_path):
    source = small_llama(tmp_path / "source", rope_parameters={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64, "rope_theta": 1e4})
    (source / "tokenizer.json").write_text(bytes_tokenizer(tmp_path))
    wavroute_import(source, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "m.gguf", "gguf", "--type", kind)
    found = llama_cpp(tmp_path / "m.gguf", IDS[:12], 40, tmp_path)
    assert found["text"] == list(b"a sheep, 42!")
    tokens, gaps = greedy(tmp_path / "model", IDS[:12], 40)
    sure = next((n for n, gap in enumerate(gaps) if gap < 0.05), len(gaps))
    until = sure if kind == "f32" else min(16, sure)
    assert found["tokens"][:until] == tokens[:until]


def test_llama_cpp_continues_smollm2(tmp_path):
    wavroute_import(smollm2(tmp_path), tmp_path / "model")
    export(tmp_path / "model", tmp_path / "m.gguf", "gguf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    prompt = tokenizer.encode("The three primary colours are")
    found = llama_cpp(tmp_path / "m.gguf", prompt, 32, tmp_path)
    assert found["text"] == tokenizer.encode("a sheep, 42!")
    tokens, gaps = greedy(tmp_path / "model", prompt, 32)
    until = next((n for n, gap in enumerate(gaps) if gap < 0.05), len(gaps))
    assert until >= 7 and found["tokens"][:until] == tokens[:until]


def test_a_sentencepiece_vocabulary_goes_through_a_gguf(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    source = SHARED / "data" / "weights" / "stories260K.bin"
    if not source.is_file():
        pytest.skip("no weights/stories260K.bin: WAVROUTE_SHARED=the folder above data")
    wavroute_import(source, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "m.gguf", "gguf")
    wavroute_import(tmp_path / "m.gguf", tmp_path / "again")
    ours, again = (tokenizers.Tokenizer.from_file(str(tmp_path / name / "tokenizer.json"))
                   for name in ("model", "again"))
    for text in ("Once upon a time, there was a little girl.", "grün & €5", "Tim's dog ran."):
        assert ours.encode(text).ids == again.encode(text).ids, text
    found = llama_cpp(tmp_path / "m.gguf", ours.encode("Once upon").ids, 40, tmp_path)
    assert found["text"] == ours.encode("a sheep, 42!").ids[1:]
    tokens, gaps = greedy(tmp_path / "model", ours.encode("Once upon").ids, 40)
    until = next((n for n, gap in enumerate(gaps) if gap < 0.05), len(gaps))
    assert until > 4 and found["tokens"][:until] == tokens[:until]


# ---- what can't be ------------------------------------------------------------------------------

def refusal(*arguments: object) -> str:
    done = paths.call("wavroute", "export", *arguments)
    assert done.returncode == 2 and "hint: " in done.stderr, done.stderr
    return done.stderr


def test_what_a_format_cannot_hold_is_named(checkpoints, tmp_path):
    out = tmp_path / "out"
    for scheme in ("wav", "act"):
        source = checkpoints(scheme, **OTHERS[scheme])
        for form in ("gguf", "llama2c"):
            assert f"given {scheme}" in refusal(source, "--format", form, "--out", out)
    source = checkpoints("prenorm")
    assert "f32" in refusal(source, "--format", "llama2c", "--type", "f16", "--out", out)
    assert "q8_0" in refusal(source, "--format", "hf", "--type", "q8_0", "--out", out)
    assert not out.exists()
    out.write_text("mine")
    for form in ("hf", "gguf", "llama2c"):
        assert "isn't there yet" in refusal(source, "--format", form, "--out", out)
    assert out.read_text() == "mine"


def test_a_tokenizer_of_characters_does_not_fit_into_a_gguf(checkpoints, tmp_path):
    source = checkpoints("prenorm")
    folder = tmp_path / "chars"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((source / name).read_bytes())
    (folder / "tokenizer.json").write_text(json.dumps(
        {"version": "1.0", "pre_tokenizer": {"type": "Split"},
         "model": {"type": "WordLevel", "vocab": {chr(200 + n): n for n in range(256)}}}))
    message = refusal(folder, "--format", "gguf", "--out", tmp_path / "m.gguf")
    assert "characters" in message and not (tmp_path / "m.gguf").exists()
