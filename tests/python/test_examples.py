"""The Python programs of examples/, in a short form: each asserts its own result."""

import difflib
import runpy

import paths
import pytest

pytest.importorskip("torch")
EXAMPLES = paths.REPOSITORY / "examples"


def run(name: str, steps: int):
    paths.package()
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](steps)


def test_gpt2_becomes_wav_by_a_short_diff():
    plain, routed = ((EXAMPLES / f"{name}.py").read_text().split('"""', 2)[2].splitlines()
                     for name in ("gpt2", "gpt2_wav"))
    changes = [line for line in difflib.ndiff(plain, routed) if line[0] in "+-"]
    assert len(changes) <= 12
    assert run("gpt2", 40) > 0 and run("gpt2_wav", 40) > 0


def test_a_llama_of_transformers_is_patched_and_learns():
    pytest.importorskip("transformers")
    run("llama", 60)


def test_a_vision_transformer_reads_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    assert set(run("vision", 150)) == {"prenorm", "wav"}


def test_an_encoder_decoder_reverses_sequences():
    run("reversal", 60)


def test_pictures_and_words_share_a_stream():
    run("two_modalities", 60)
