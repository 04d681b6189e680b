"""train.init: training starts from the weights of another model, and knows them by their sha256."""

import hashlib
import json
import shutil
from pathlib import Path

import cli_tools
import paths
import pytest
import torch
from model_files import small_llama, wavroute_import
from safetensors.torch import load_file

transformers = pytest.importorskip("transformers")


@pytest.fixture
def model(tmp_path) -> Path:
    """An imported model of bytes, beside a text."""
    source = small_llama(tmp_path / "source", hidden_size=32)
    cli_tools.assert_ok(paths.call("write_tokenizer", "bytes", "-", source / "tokenizer.json"))
    wavroute_import(source, tmp_path / "model")
    (tmp_path / "t.txt").write_text("".join(f"{n}: {n * n} sheep?\n" for n in range(300)))
    return tmp_path / "model"


def train(model: Path, out: Path, *flags: object, config: Path | None = None):
    fixed = cli_tools.sets(data__train=model.parent / "t.txt", train__batch=2, train__threads=1,
                           train__precision="fp32", sample__tokens=0, data__eval_tokens=200,
                           train__save_every=2, train__keep=9)
    return paths.call("wavroute", "train", config or model / "config.toml", "--out", out,
                      *(fixed if config is None else []), *flags)


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step}" / "model.safetensors")


def test_an_imported_model_is_trained_further_at_once(model, tmp_path):
    done = train(model, tmp_path / "run", *cli_tools.sets(train__steps=1, optimizer__lr=1e-9))
    cli_tools.assert_ok(done)
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert digest in done.stdout and str(model) in done.stdout
    before = load_file(model / "model.safetensors")
    for name, value in weights(tmp_path / "run", 1).items():
        assert (value - before[name]).abs().max() < 1e-6, name
    state = json.loads((tmp_path / "run" / "checkpoints" / "step_1" / "state.json").read_text())
    assert state["init_sha256"] == digest


def test_a_resume_reads_the_weights_no_more(model, tmp_path):
    whole = tmp_path / "whole"
    cli_tools.assert_ok(train(model, whole, *cli_tools.sets(train__steps=4)))
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step_4")
    (cut / "summary.json").unlink()
    shutil.move(model, tmp_path / "gone")
    cli_tools.assert_ok(train(model, cut, "--resume", "auto", config=cut / "config.toml"))
    for name, value in weights(whole, 4).items():
        assert torch.equal(value, weights(cut, 4)[name]), name


COMPANIONS = {"generation_config.json": '{"eos_token_id": [63, 10]}',
              "tokenizer_config.json": '{"eos_token": "?", "chat_template": "{{ messages }}"}',
              "chat_template.jinja": "{{ messages[0].content }}"}


def test_what_says_how_a_model_is_used_goes_with_every_checkpoint(model, tmp_path):
    for name, text in COMPANIONS.items():
        (model / name).write_text(text)
    run = tmp_path / "run"
    cli_tools.assert_ok(train(model, run, *cli_tools.sets(train__steps=4)))
    shutil.rmtree(run / "checkpoints" / "step_4")
    (run / "summary.json").unlink()
    shutil.rmtree(model)
    cli_tools.assert_ok(train(model, run, "--resume", "auto", config=run / "config.toml"))
    for step in (2, 4):
        folder = run / "checkpoints" / f"step_{step}"
        assert {name: (folder / name).read_text() for name in COMPANIONS} == COMPANIONS
        assert set(COMPANIONS) < set(json.loads((folder / "state.json").read_text())["files"])
    done = paths.call("wavroute", "generate", run, "--prompt", "7: 49 shee", "-n", 200, "--json",
                      "--temperature", 1)
    cli_tools.assert_ok(done)
    assert json.loads(done.stdout)["ids"][-1] in (63, 10)  # "?" or a line's end
    (run / "checkpoints" / "step_4" / "generation_config.json").write_text("{}")
    damaged = paths.call("wavroute", "generate", run, "--prompt", "7", "-n", 1)
    assert "passed over" in damaged.stderr and "generation_config.json" in damaged.stderr


def test_weights_that_moved_are_known_by_their_content(model, tmp_path):
    run = tmp_path / "run"
    cli_tools.assert_ok(train(model, run, *cli_tools.sets(train__steps=2)))
    shutil.copytree(model, tmp_path / "copy")
    moved = cli_tools.sets(train__init=tmp_path / "copy")
    more = cli_tools.sets(train__steps=4)
    cli_tools.assert_ok(train(model, run, *moved, *more, "--resume", "auto"))
    file = tmp_path / "copy" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for flags in (moved, cli_tools.sets(train__init="")):
        done = train(model, run, *flags, *cli_tools.sets(train__steps=6), "--resume", "auto")
        if flags is moved:
            # config.toml names the copy by now: what lies there is not read again.
            cli_tools.assert_ok(done)
            continue
        assert done.returncode == 2 and "train.init" in done.stderr, done.stderr


@pytest.mark.parametrize("flags", [[], ["--dry-run"]], ids=["train", "dry_run"])
def test_other_shapes_are_named_before_anything_is_written(flags, model, tmp_path):
    out = tmp_path / "run"
    for change, word in (({"model__layers": 3}, "model.layers.2."),
                         ({"model__hidden": 64}, "gate_proj"),
                         ({"residual__scheme": "wav"}, "--to wav"),
                         ({"train__init": tmp_path / "none"}, "none")):
        done = train(model, out, *cli_tools.sets(**change), *flags)
        assert done.returncode == 2 and word in done.stderr, done.stderr
        assert "hint: " in done.stderr and not out.exists()
    done = train(model, out, *cli_tools.sets(model__rope_theta=500.0), "--dry-run")
    assert done.returncode == 0 and "rope_theta" in done.stderr, done.stderr
