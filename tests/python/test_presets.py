"""Shipped configurations: each runs as it is, or stops with the line that makes it so."""

import re
import shlex
import subprocess

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets
from paths import REPOSITORY, call

PRESETS = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.toml"))
PREPARED = [name for name in PRESETS
            if re.search(r"corpora/|paper-tinystories|stories-small|gpt2-124m",
                         (REPOSITORY / "configs" / f"{name}.toml").read_text())]  # fmt: skip


@pytest.mark.parametrize("name", PREPARED)
def test_a_preset_whose_text_is_missing_stops_with_the_line_that_prepares_it(
    wavroute, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    result = wavroute("compare", name, "--out", tmp_path / "out")
    assert_error(result, "corpora/")
    (line,) = re.findall(r"hint: (wavroute data prepare SOURCE --recipe \S+.*)", result.stderr)
    assert f"--out {tmp_path}/corpora/" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tiny", "demo", "chars"])
def test_a_small_preset_runs(wavroute, tmp_path, name):
    values = sets(train__steps=2, train__save_every=0, train__eval_every=0, compare__seeds="[1]",
                  data__max_bytes=200000, data__eval_tokens=512, sample__tokens=0)  # fmt: skip
    out = tmp_path / "out"
    assert "prenorm" in assert_ok(wavroute("compare", name, "--out", out, "--speed-rounds", 0, *values))


def test_a_prepared_folder_makes_a_preset_run(wavroute, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    story = "Once upon a time there was a cat. It ran home to eat.\n<|endoftext|>\n"
    for split, count in (("train", 300), ("valid", 60)):
        (tmp_path / f"TinyStories-{split}.txt").write_text(
            "".join(f"{i} {story}" for i in range(count))
        )
    sources = [tmp_path / f"TinyStories-{split}.txt" for split in ("train", "valid")]
    prepared = call("wavroute", "data", "prepare", *sources, "--recipe", "tinystories",
                    "--tokenizer", "chars", "--out", "corpora/tinystories-chars")  # fmt: skip
    assert prepared.returncode == 0, prepared.stderr
    values = sets(model__width=16, model__layers=2, compare__depths="[]", train__batch=2,
                  train__steps=10, compare__schemes='["prenorm"]')  # fmt: skip
    for name in ("stories-small", "paper-tinystories"):
        assert "expected time" in assert_ok(wavroute("compare", name, "--dry-run", *values))


def test_the_gpt2_sizes_have_gpt2s_parameters(wavroute):
    """Of the matrices of their layers: 12 d^2 each, as in GPT-2."""
    for name, layers, width in (("124m", 12, 768), ("350m", 24, 1024), ("774m", 36, 1280),
                                ("1558m", 48, 1600)):  # fmt: skip
        text = assert_ok(wavroute("config", "show", f"gpt2-{name}"))
        found = {key: int(re.search(rf"^{key} = (\d+)", text, re.MULTILINE)[1])
                 for key in ("layers", "width", "hidden")}  # fmt: skip
        assert (found["layers"], found["width"]) == (layers, width)
        matrices = 4 * width**2 + 3 * width * found["hidden"]
        assert matrices == pytest.approx(12 * width**2, rel=1e-3)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["comp"], {"compare", "completion"}),
        (["compare", "--list"], {"--list-cells"}),
        (["compare", "gpt2-"], {f"gpt2-{size}" for size in ("124m", "350m", "774m", "1558m")}),
        (["compare", "tiny", "--res"], {"--resume"}),
        (["data", "prep"], {"prepare"}),
        (["data", "prepare", "--rec"], {"--recipe"}),
    ],
)
def test_bash_completes_commands_flags_and_configurations(line, expected):
    program = shlex.quote(str(paths.program("wavroute")))
    words = " ".join(map(shlex.quote, ["wavroute", *line]))
    script = (f"source <({program} completion bash); COMP_WORDS=({words}); "
              f"COMP_CWORD={len(line)}; _wavroute; printf '%s\\n' \"${{COMPREPLY[@]}}\"")  # fmt: skip
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert set(done.stdout.split()) == expected
