"""wavroute import: models of other programs compute what they compute there, with their tokenizers;
what isn't read is refused by name and leaves nothing behind."""

import json
import struct
from pathlib import Path

import numpy
import paths
import pytest
import torch
from model_files import (SHARED, assert_same_logits, logits_for, small_llama, smollm2,
                         transformers_logits, wavroute_import)
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

IDS = [(n * n + 7 * n) % 256 for n in range(48)]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16, "rope_theta": 1e4}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
        "rope_theta": 1e4}
FOLDERS = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "shards_of_bf16": {"shard": "20KB", "dtype": torch.bfloat16},
    "fp16": {"dtype": torch.float16},
    "head_dim": {"head_dim": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
                 "hidden_size": 40},
    "bias": {"attention_bias": True},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    "llama3": {"rope_parameters": LLAMA3},
    "yarn": {"rope_parameters": YARN},
    "yarn_mscale": {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 0.9,
                                               "beta_fast": 8.0, "beta_slow": 0.5}},
    "yarn_factor": {"rope_parameters": YARN | {"attention_factor": 1.3, "truncate": False}},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hugging_face_folder_keeps_its_function(name, tmp_path):
    source = small_llama(tmp_path / "source", **FOLDERS[name])
    wavroute_import(source, tmp_path / "model")
    theirs = transformers_logits(source, IDS)
    assert_same_logits(logits_for(tmp_path / "model", IDS, tmp_path), theirs)
    assert_same_logits(transformers_logits(tmp_path / "model", IDS), theirs)


# ---- GGUF ------------------------------------------------------------------------------------

def gguf_names(layers: int) -> dict[str, str]:
    """Hugging Face's names -> GGUF's, by the table of the library."""
    gguf = pytest.importorskip("gguf")
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm",
             "post_attention_layernorm"]
    names = [f"model.layers.{i}.{part}" for i in range(layers) for part in parts]
    return {name: table.get_name(name) for name in
            ["model.embed_tokens", "model.norm", "lm_head", *names]}


def permuted(rows: numpy.ndarray, heads: int) -> numpy.ndarray:
    """llama.cpp's order of the rows of queries and keys (convert_hf_to_gguf.py)."""
    return (rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
            .swapaxes(1, 2).reshape(rows.shape))


def write_gguf(path: Path, folder: Path, types: list[str], extra=lambda writer: None) -> dict:
    """`folder` as a GGUF whose matrices take the types in turn; the fp32 values that they stand for,
    as `gguf` dequantises them, under Hugging Face's names."""
    gguf = pytest.importorskip("gguf")
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    writer.add_head_count(heads["q"])
    writer.add_head_count_kv(heads["k"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(1e4)
    extra(writer)
    draw = numpy.random.default_rng(1)
    names, values, matrices = gguf_names(config["num_hidden_layers"]), {}, 0
    for name, tensor in tensors.items():
        stem, suffix = name.rsplit(".", 1)
        rows = tensor.float().numpy()
        head = next((count for part, count in heads.items() if f".{part}_proj" in name), None)
        if head:
            rows = permuted(rows, head)
        kind = gguf.GGMLQuantizationType.F32
        if rows.ndim == 2:
            kind = gguf.GGMLQuantizationType[types[matrices % len(types)]]
            matrices += 1
        if "_K" in kind.name:  # the library has no quantiser of these: any bytes, of a sane scale
            block, size = gguf.GGML_QUANT_SIZES[kind]
            data = draw.integers(0, 256, (rows.shape[0], rows.shape[1] // block, size), numpy.uint8)
            at = size - 2 if kind.name == "Q6_K" else 0
            data[..., at:at + 2] = numpy.frombuffer(numpy.float16(1e-3).tobytes(), numpy.uint8)
            if kind.name != "Q6_K":
                data[..., 2:4] = numpy.frombuffer(numpy.float16(2e-3).tobytes(), numpy.uint8)
            data = data.reshape(rows.shape[0], -1)
        else:
            data = gguf.quantize(rows, kind)
        value = gguf.dequantize(data, kind)
        if head:  # undone: the inverse of the permutation
            half = value.shape[0] // head // 2
            value = (value.reshape(head, half, 2, *value.shape[1:]).swapaxes(1, 2)
                     .reshape(value.shape))
        values[name] = torch.from_numpy(value.copy())
        writer.add_tensor(f"{names[stem]}.{suffix}", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3}


def test_every_type_of_a_gguf_is_dequantised_as_by_its_own_library(tmp_path):
    source = small_llama(tmp_path / "source", **WIDE)
    types = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
    values = write_gguf(tmp_path / "m.gguf", source, types)
    wavroute_import(tmp_path / "m.gguf", tmp_path / "model")
    ours = load_file(tmp_path / "model" / "model.safetensors")
    assert ours.keys() == values.keys()
    for name, value in values.items():
        assert torch.equal(ours[name], value) or (ours[name] - value).abs().max() <= \
            2e-7 * value.abs().max(), name


def test_other_types_of_a_gguf_are_named(tmp_path):
    gguf = pytest.importorskip("gguf")
    source = small_llama(tmp_path / "source", **WIDE)
    original = gguf.quantize
    try:
        gguf.quantize = lambda rows, kind: (
            numpy.zeros((rows.shape[0], rows.shape[1] // 256 * 110), numpy.uint8)
            if kind.name == "Q3_K" else original(rows, kind))
        plain = gguf.dequantize
        gguf.dequantize = lambda data, kind: (
            numpy.zeros((data.shape[0], data.shape[1] // 110 * 256), numpy.float32)
            if kind.name == "Q3_K" else plain(data, kind))
        write_gguf(tmp_path / "m.gguf", source, ["F32", "Q3_K".replace("_K", "_K")])
    except ValueError:
        pytest.skip("this gguf writes no Q3_K")
    finally:
        gguf.quantize, gguf.dequantize = original, plain
    done = paths.call("wavroute", "import", tmp_path / "m.gguf", "--out", tmp_path / "model")
    assert done.returncode == 2 and "Q3_K" in done.stderr, done.stderr
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("scaling", ["linear", "yarn", "llama3"])
def test_a_gguf_keeps_its_rope_scaling(scaling, tmp_path):
    gguf = pytest.importorskip("gguf")
    rope = {"linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}, "yarn": YARN,
            "llama3": LLAMA3 | {"original_max_position_embeddings": 64}}[scaling]
    source = small_llama(tmp_path / "source", rope_parameters=rope)

    def add(writer):
        if scaling == "llama3":  # as convert_hf_to_gguf.py does: a divisor of each frequency
            config = transformers.LlamaConfig.from_pretrained(source)
            function = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"]
            frequencies = function(config, "cpu")[0]
            plain = 1e4 ** -(torch.arange(0, 8, 2) / 8)
            writer.add_tensor("rope_freqs.weight", (plain / frequencies).float().numpy())
            return
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(16)

    write_gguf(tmp_path / "m.gguf", source, ["F32"], add)
    wavroute_import(tmp_path / "m.gguf", tmp_path / "model")
    assert_same_logits(logits_for(tmp_path / "model", IDS, tmp_path),
                       transformers_logits(source, IDS))


def test_smollm2_of_a_gguf_has_the_known_loss_and_its_tokenizer(tmp_path):
    wiki = SHARED / "data" / "wikitext2" / "wiki.test.raw"
    if not wiki.is_file():
        pytest.skip("no wikitext2/wiki.test.raw: WAVROUTE_SHARED=the folder above data")
    source, model = smollm2(tmp_path), tmp_path / "model"
    wavroute_import(source, model)
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    with open(wiki, encoding="utf-8", newline="") as file:
        ids = tokenizer.encode(file.read(8000)).ids[:1024]
    theirs = transformers_logits(model, ids)
    ours = logits_for(model, ids, tmp_path)
    assert_same_logits(ours, theirs)
    loss = torch.nn.functional.cross_entropy(ours[:-1], torch.tensor(ids[1:]))
    assert abs(loss.item() - 2.6262) < 1e-3
    settings = json.loads((model / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == "<|im_end|>" and "<|im_start|>" in settings["chat_template"]
    assert json.loads((model / "generation_config.json").read_text())["eos_token_id"] == 2
    hello = tokenizer.encode("<|im_start|>user\nHello 42 wörld!<|im_end|>")
    assert hello.tokens[0] == "<|im_start|>" and tokenizer.decode(hello.ids, False) == \
        "<|im_start|>user\nHello 42 wörld!<|im_end|>"


# ---- llama2.c ---------------------------------------------------------------------------------

def test_llama2c_tells_its_story(tmp_path):
    source = SHARED / "data" / "weights" / "stories260K.bin"
    if not source.is_file():
        pytest.skip("no weights/stories260K.bin: WAVROUTE_SHARED=the folder above data")
    model = tmp_path / "model"
    wavroute_import(source, model)
    llama = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    ids = llama.generate(torch.tensor([[1]]), max_new_tokens=100, do_sample=False)[0].tolist()
    story = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json")).decode(ids)
    # What run.c prints at temperature 0.
    assert story.startswith("Once upon a time, there was a little girl named Lily. "
                            "She loved to play outside"), story
    assert_same_logits(logits_for(model, ids, tmp_path), transformers_logits(model, ids))


def joined_by_score(text: str, pieces: dict[str, tuple[int, float]]) -> list[int]:
    """SentencePiece's rule, and run.c's: join the neighbours whose joint piece has the best score."""
    parts = []
    for character in text:
        known = character in pieces
        parts += [character] if known else [f"<0x{byte:02X}>" for byte in character.encode()]
    while True:
        scored = [(-pieces[a + b][1], n) for n, (a, b) in enumerate(zip(parts, parts[1:]))
                  if a + b in pieces]
        if not scored:
            return [pieces[part][0] for part in parts]
        n = min(scored)[1]
        parts[n:n + 2] = [parts[n] + parts[n + 1]]


def test_llama2c_texts_are_cut_as_their_scores_say(tmp_path):
    source = SHARED / "data" / "weights" / "stories260K.bin"
    if not source.is_file():
        pytest.skip("no weights/stories260K.bin: WAVROUTE_SHARED=the folder above data")
    wavroute_import(source, tmp_path / "model")
    content, at, pieces = (source.parent / "tok512.bin").read_bytes(), 4, {}
    for number in range(512):
        score, length = struct.unpack_from("<fi", content, at)
        pieces[content[at + 8:at + 8 + length].decode().replace(" ", "\u2581")] = (number, score)
        at += 8 + length
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    for text in ("Once upon a time, there was a little girl named Lily.", "  two  spaces ", "a",
                 "grün & €5 \U0001f600", "Tim's dog\nran. \"Hi!\" she said."):
        ids = tokenizer.encode(text).ids
        marked = "\u2581" + text.replace(" ", "\u2581")
        if text.startswith(" "):  # a text that begins with a space gets no other
            marked = marked[1:]
        assert ids == [1, *joined_by_score(marked, pieces)], text
        assert tokenizer.decode(ids) == text.removeprefix(" ")


def test_llama2c_of_version_1_is_that_of_version_0(tmp_path):
    """Version 1 orders the tensors otherwise (export.py of llama2.c)."""
    source = SHARED / "data" / "weights" / "stories260K.bin"
    if not source.is_file():
        pytest.skip("no weights/stories260K.bin: WAVROUTE_SHARED=the folder above data")
    content = source.read_bytes()
    sizes = struct.unpack("7i", content[:28])
    dim, hidden, layers, heads, kv_heads, vocab, _ = sizes
    kv = dim // heads * kv_heads
    counts = [vocab * dim, *[layers * n for n in (dim, dim * dim, kv * dim, kv * dim, dim * dim,
                                                  dim, hidden * dim, dim * hidden, hidden * dim)],
              dim]
    at, parts = 28, []
    for count in counts:
        parts.append(content[at:at + 4 * count])
        at += 4 * count
    embedding, norm1, q, k, v, o, norm2, gate, down, up, norm = parts
    head = struct.pack("<II7iB", 0x616B3432, 1, *sizes, 1)
    other = tmp_path / "one.bin"
    other.write_bytes(head.ljust(256, b"\0") + b"".join(
        [norm1, norm2, norm, embedding, q, k, v, o, gate, down, up]))
    wavroute_import(source, tmp_path / "zero")
    wavroute_import(other, tmp_path / "one", "--tokenizer", source.parent / "tok512.bin")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "zero" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


# ---- what is refused ---------------------------------------------------------------------------

def refusal(source: Path, out: Path) -> str:
    done = paths.call("wavroute", "import", source, "--out", out)
    assert done.returncode == 2 and "hint: " in done.stderr, done.stderr
    assert not [name for name in out.parent.iterdir() if name == out or "tmp" in name.name]
    return done.stderr


def test_bad_sources_are_refused_and_leave_nothing(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    out = work / "out"
    source = small_llama(tmp_path / "llama")
    (tmp_path / "none").mkdir()
    assert "config.json" in refusal(tmp_path / "none", out)
    assert "at " in refusal(tmp_path / "absent", out)
    (tmp_path / "text.bin").write_text("no model at all, only a text of some length\n" * 9)
    assert "text.bin" in refusal(tmp_path / "text.bin", out)
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(5))
    assert "cut.gguf" in refusal(tmp_path / "cut.gguf", out)
    tensors = load_file(source / "model.safetensors")
    for change, word in (({"model.norm.weight": None}, "model.norm.weight"),
                         ({"x.weight": torch.zeros(2)}, "x.weight"),
                         ({"model.norm.weight": torch.zeros(31)}, "[32]"),
                         ({"model.norm.weight": torch.zeros(32, dtype=torch.int64)}, "floating")):
        folder = tmp_path / f"changed{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "config.json").write_bytes((source / "config.json").read_bytes())
        save_file({name: value for name, value in (tensors | change).items() if value is not None},
                  folder / "model.safetensors")
        assert word in refusal(folder, out)


def test_a_refusal_leaves_no_folder_on_the_way(tmp_path):
    (tmp_path / "text.bin").write_text("no model at all, only a text of some length\n" * 9)
    out = tmp_path / "new" / "deep" / "out"
    for source in ("absent", "text.bin", "."):
        done = paths.call("wavroute", "import", tmp_path / source, "--out", out)
        assert done.returncode == 2 and "hint: " in done.stderr, done.stderr
        assert not (tmp_path / "new").exists()
    done = paths.call("wavroute", "import", tmp_path / "text.bin", "--out", "")
    assert done.returncode == 2 and "given ''" in done.stderr, done.stderr


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    source = small_llama(tmp_path / "llama")
    (tmp_path / "out").mkdir()
    done = paths.call("wavroute", "import", source, "--out", tmp_path / "out")
    assert done.returncode == 2 and "isn't there yet" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


# ---- into another scheme -----------------------------------------------------------------------

KEPT = {"prenorm": [], "layerdrop": [], "rezero": [], "layerscale": [], "block_layerscale": [],
        "gated": [], "act": [], "denseformer": [], "mhc_lite": ["streams=3"], "full_attnres": [],
        "block_attnres": ["blocks=2"], "haares": ["blocks=2", "beta=-16"],
        "wav": ["blocks=2", "beta=-16"]}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A tied model of 6 layers whose stream is as large as a real one, with the tokenizer of
    bytes."""
    root = tmp_path_factory.mktemp("plain")
    source = small_llama(root / "source", num_hidden_layers=6, tie_word_embeddings=True)
    tensors = load_file(source / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= 2
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    done = paths.call("write_tokenizer", "bytes", "-", source / "tokenizer.json")
    assert done.returncode == 0, done.stderr
    return source, transformers_logits(source, IDS)


@pytest.mark.parametrize("scheme", KEPT)
def test_a_plain_model_keeps_its_function_under_another_scheme(scheme, plain, tmp_path):
    source, theirs = plain
    flags = [flag for option in KEPT[scheme] for flag in ("--residual", option)]
    done = wavroute_import(source, tmp_path / "model", "--to", scheme, *flags)
    assert f"{scheme}: the function is kept" in done.stdout, done.stdout
    ours = logits_for(tmp_path / "model", IDS, tmp_path)
    assert (ours - theirs).abs().max() <= 1e-3 * (theirs.max() - theirs.min())
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "config.toml",
                     "tokenizer_config.json", "generation_config.json"}


def test_details_change_the_function_as_little_as_their_bias_says(plain, tmp_path):
    source, theirs = plain
    changes = []
    for beta in (-2, -4, -8):
        out = tmp_path / str(beta)
        done = wavroute_import(source, out, "--to", "wav", "--residual", f"beta={beta}",
                               "--residual", "blocks=2")
        changes.append((logits_for(out, IDS, tmp_path) - theirs).abs().max().item())
    assert "not kept" in wavroute_import(source, tmp_path / "w", "--to", "wav", "--residual",
                                         "blocks=2").stdout
    assert changes[0] > 3 * changes[1] > 9 * changes[2] > 0, changes


@pytest.mark.parametrize("scheme", ["gated", "wav", "mhc_lite", "act"])
def test_a_converted_model_is_trained_and_every_parameter_moves(scheme, plain, tmp_path):
    source, _ = plain
    (tmp_path / "t.txt").write_text("".join(f"{n}: {n * n} sheep?\n" for n in range(300)))
    wavroute_import(source, tmp_path / "model", "--to", scheme)
    done = paths.call("wavroute", "train", tmp_path / "model" / "config.toml", "--out",
                      tmp_path / "run", "--set", f"data.train={tmp_path / 't.txt'}",
                      "--set", "train.steps=3", "--set", "train.batch=2", "--set",
                      "train.precision=fp32", "--set", "sample.tokens=0", "--set",
                      "train.threads=1", "--set", "optimizer.lr=1e-3")
    assert done.returncode == 0, done.stderr
    before = load_file(tmp_path / "model" / "model.safetensors")
    after = load_file(tmp_path / "run" / "checkpoints" / "step_3" / "model.safetensors")
    same = [name for name, value in before.items() if torch.equal(value, after[name])]
    # Zero at first: what multiplies the queries of routers, or the matrices of a gate or a mix, that
    # are still zero.
    still = ("_res_norm", "fc1", "_hc_res")
    assert [name for name in same if not any(part in name for part in still)] == [], same


def test_options_belong_to_the_scheme_that_is_asked_for(plain, tmp_path):
    source, _ = plain
    for flags, word in ((["--residual", "blocks=2"], "--to"), (["--to", "wavy"], "wav"),
                        (["--to", "wav", "--residual", "blok=2"], "blok"),
                        (["--to", "wav", "--residual", "blocks=5"], "blocks"),
                        (["--to", "act", "--residual", "shared=true"], "shares")):
        done = paths.call("wavroute", "import", source, "--out", tmp_path / "out", *flags)
        assert done.returncode == 2 and word in done.stderr, done.stderr
        assert list(tmp_path.iterdir()) == []
