"""`wavroute data train-tokenizer`: sources as for `data prepare`, one tokenizer.json."""

import gzip
import json

import pytest
from cli_tools import assert_ok


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from paths import call, program

    program("wavroute")
    folder = tmp_path_factory.mktemp("trained")
    text = "the cat sat on the mat, the hat on the cat.\n" * 50
    (folder / "texts").mkdir()
    (folder / "texts/a.txt").write_text(f"{text}<|endoftext|>{text}")
    with gzip.open(folder / "texts/b.jsonl.gz", "wt") as lines:
        lines.write(json.dumps({"text": "naïve " * 20}) + "\n")
    out = folder / "new/tokenizer.json"
    arguments = ["data", "train-tokenizer", folder / "texts", "--vocab", 270, "--out", out]
    done = call("wavroute", *arguments, "--json")
    assert_ok(done)
    return json.loads(done.stdout), out


def test_it_says_what_it_made(trained):
    said, out = trained
    assert said["path"] == str(out) and said["vocab_size"] == 270 and said["bytes"] > 4000


def test_it_learns_the_words_and_not_the_separator(trained):
    tokenizer = json.loads(trained[1].read_text())
    vocab = tokenizer["model"]["vocab"]
    assert "Ġthe" in vocab and "Ġcat" in vocab
    assert [token for token in vocab if "endoftext" in token] == ["<|endoftext|>"]
    assert tokenizer["added_tokens"][0]["content"] == "<|endoftext|>"


def test_data_prepare_takes_it(trained, wavroute, tmp_path):
    done = wavroute("data", "prepare", trained[1].parent.parent / "texts", "--valid", 0,
                    "--tokenizer", trained[1], "--out", tmp_path / "data", "--json")
    assert_ok(done)
    manifest = json.loads(done.stdout)
    assert manifest["documents"] == 3 and manifest["tokens"] < manifest["bytes"] / 2


def test_too_small_a_vocabulary_is_refused_before_anything_is_read(wavroute, tmp_path):
    done = wavroute("data", "train-tokenizer", tmp_path, "--vocab", 100, "--out", tmp_path / "t.json")
    assert done.returncode == 2
    assert "257" in done.stderr and not (tmp_path / "t.json").exists()


def test_a_short_text_gives_fewer_tokens_and_says_so(wavroute, tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    out = tmp_path / "t.json"
    done = wavroute("data", "train-tokenizer", tmp_path / "a.txt", "--vocab", 300, "--out", out)
    assert_ok(done)
    assert "257 tokens" in done.stdout and "too short" in done.stderr
