"""What each command prints and writes when it succeeds."""

import functools
import json
import re
import shlex

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets, steps_of, write_project

COMMANDS = ["train", "compare", "report", "eval", "inspect", "generate", "chat", "program", "import",
            "export", "bench", "config", "data", "doctor", "completion"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("commands"))


@pytest.fixture(scope="module")
def run(project):
    out = project.parent / "run"
    values = sets(sample__tokens=5, sample__prompt="the cat")
    assert_ok(paths.call("wavroute", "train", project, "--out", out, *values))
    return out


@pytest.fixture
def evaluate(wavroute, project, run):
    """wavroute eval --json of the run on the validation text, as an object."""
    valid = project.parent / "valid.txt"
    return lambda *more: json.loads(
        assert_ok(wavroute("eval", run, "--data", valid, "--json", *more))
    )


@functools.cache
def help_of(*command: str) -> str:
    return assert_ok(paths.call("wavroute", *command, "--help"))


@functools.cache
def leaves(*command: str) -> list[tuple[str, ...]]:
    """The commands at or below `command` that have no subcommands, as their help lists them."""
    below = help_of(*command).partition("\nSubcommands:\n")[2].partition("\n\n")[0]
    names = re.findall(r"^  (\S+)", below, re.MULTILINE)
    return [leaf for name in names for leaf in leaves(*command, name)] or [command]


def examples_of(*command: str) -> list[list[str]]:
    """The words after wavroute of each example in a help text; a remark has two spaces before it."""
    lines = re.findall(r"^    (.*)", help_of(*command).partition("\nExamples:\n")[2], re.MULTILINE)
    found = [re.search(r"(?:^|[|(] ?)wavroute (.*?)(?=  | ?[|)>]|$)", line) for line in lines]
    return [shlex.split(one[1]) for one in found if one]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_command_and_its_options(command):
    text = help_of(command)
    assert f"Usage: wavroute {command}" in text and "--help" in text
    assert command in help_of()


def test_the_help_of_every_command_has_an_example_of_commands_flags_and_presets_that_exist():
    shipped = {path.stem for path in (paths.REPOSITORY / "configs").glob("*.toml")}
    assert len(leaves()) > 20
    for command in leaves():
        examples = examples_of(*command)
        assert any(tuple(words[:len(command)]) == command for words in examples), command
        for words in examples:
            (used,) = [leaf for leaf in leaves() if tuple(words[:len(leaf)]) == leaf]
            options = help_of(*used).partition("\nExamples:\n")[0]
            flags = set(re.findall(r"^  (-\w|--[\w-]+)", options, re.MULTILINE))
            flags |= set(re.findall(r"^  -\w,(--[\w-]+)", options, re.MULTILINE))
            given = {word for word in words if re.match(r"--?\w", word)}
            assert given <= flags, (command, words, given - flags)
            if " CONFIG" in options.partition("\n\n")[0]:
                config = words[len(used)]
                assert config in shipped or config.endswith(".toml"), (command, words)


def test_a_dry_run_prints_the_plan_and_writes_nothing(wavroute, project, tmp_path):
    before = sorted(project.parent.rglob("*"))
    values = sets(residual__scheme="prenorm")
    text = assert_ok(wavroute("train", project, "--out", tmp_path / "run", "--dry-run", *values))
    vocabulary = len(set((project.parent / "train.txt").read_text()))
    width, hidden, layers = 16, 32, 2
    block = 4 * width * width + 3 * width * hidden + 2 * width
    count = 2 * vocabulary * width + layers * block + width
    assert f"{count:,}" in text.split("parameters")[1].splitlines()[0]
    assert "memory plan" in text and "FLOPs per token" in text and "expected time" in text
    assert not list(tmp_path.iterdir())
    assert sorted(project.parent.rglob("*")) == before


def test_a_run_folder_has_every_file(run):
    for name in ("config.toml", "env.json", "metrics.jsonl", "train.log", "report.html"):
        assert (run / name).stat().st_size > 0, name
    assert steps_of(run) == [8, 12]  # the last two of 4, 8, 12
    names = {"config.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json"}
    for step in (8, 12):
        found = {path.name for path in (run / "checkpoints" / f"step_{step}").iterdir()}
        assert found == names | {"state.json"}
    assert not [path for path in run.rglob("*") if ".tmp" in path.name]


def test_metrics_have_one_row_a_step_under_the_documented_names(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    training = [row for row in rows if "loss" in row]
    names = "step tokens loss lr grad_norm step_ms tokens_per_s peak_rss_bytes".split()
    assert all(set(row) == set(names) for row in training)
    assert [row["step"] for row in training] == list(range(1, 13))
    assert [row["tokens"] for row in training] == [32 * step for step in range(1, 13)]
    validation = [row for row in rows if "val_loss" in row]
    assert [row["step"] for row in validation] == [4, 6, 8, 12]
    assert all(set(row) == {"step", "tokens", "val_loss", "bits_per_byte"} for row in validation)


def test_samples_continue_the_prompt(run):
    for step in (4, 6, 8, 12):
        text = (run / "samples" / f"step_{step}.txt").read_text()
        assert text.startswith("the cat") and len(text) == len("the cat") + 5 + 1


def test_config_show_gives_each_value_with_its_origin(wavroute, project):
    text = assert_ok(wavroute("config", "show", project, *sets(train__steps=7)))
    lines = {line.split("=")[0].strip(): line for line in text.splitlines() if "=" in line}
    assert lines["steps"].split("#")[0].strip() == "steps = 7" and "--set" in lines["steps"]
    line = project.read_text().splitlines().index("width = 16") + 1
    assert f"small.toml:{line}" in lines["width"]
    assert "default" in lines["lr"]


def test_the_configuration_of_a_run_is_a_configuration(wavroute, run, project):
    shown = assert_ok(wavroute("config", "show", run / "config.toml"))
    # data.format = "auto" is the only one that stays: otherwise our token files would not be read.
    resolved = re.sub(r'format = "auto" .*', "", shown.split("[compare]")[0])
    assert "auto" not in resolved
    assert_ok(wavroute("config", "check", run / "config.toml"))


def test_every_preset_is_valid(wavroute):
    names = [line.split()[0] for line in assert_ok(wavroute("config", "list")).splitlines()]
    shipped = {path.stem for path in (paths.REPOSITORY / "configs").glob("*.toml")}
    assert set(names) == shipped
    for name in names:
        assert "valid" in assert_ok(wavroute("config", "check", name))


def test_doctor_prints_one_object(wavroute):
    report = json.loads(assert_ok(wavroute("doctor", "--json")))
    assert isinstance(report, dict) and report
    assert "torch" in assert_ok(wavroute("doctor")).lower()


def test_version_is_one_line(wavroute):
    text = assert_ok(wavroute("--version"))
    assert text.startswith("wavroute ") and text.count("\n") == 1


def test_eval_scores_every_token_once_in_nats_and_bits(evaluate, project):
    result = evaluate()
    text = (project.parent / "valid.txt").read_text()
    assert result["tokens"] == len(text) - 1  # each token but the first is a target
    # One byte a token, so that bits/byte is nats/token over ln 2.
    assert result["bits_per_byte"] == pytest.approx(result["loss"] / 0.6931471805599453, rel=1e-9)
    assert set(result) >= {"run", "checkpoint", "scheme", "data", "tokens", "loss"}
    assert result["scheme"] == "wav" and result["checkpoint"].endswith("step_12")


def test_eval_agrees_with_the_validation_of_the_run(evaluate, run):
    """eval_tokens = 64: the same four windows of 16 from the start."""
    last = [json.loads(line) for line in (run / "metrics.jsonl").open()][-1]
    assert evaluate("--tokens", 64)["loss"] == last["val_loss"]
    assert evaluate("--checkpoint", 8)["loss"] != evaluate()["loss"]


def test_layer_programs_of_the_whole_model_change_no_bit(evaluate):
    plain = evaluate()["loss"]
    assert evaluate("--program", "0-1")["loss"] == plain
    assert evaluate("--program", "0x1,1")["loss"] == plain
    assert evaluate("--layers", "0,1")["loss"] == plain


def test_pruned_layers_are_the_program_that_names_them(evaluate):
    pruned = evaluate("--layers", "every-other")["loss"]
    assert pruned == evaluate("--program", "0")["loss"] == evaluate("--layers", "0")["loss"]
    assert len({pruned, evaluate()["loss"], evaluate("--program", "0,1x2")["loss"]}) == 3


def test_eval_writes_the_logits_of_the_first_batch(evaluate, project, tmp_path):
    numpy = pytest.importorskip("numpy")
    load = pytest.importorskip("safetensors.numpy").load_file
    path = tmp_path / "logits.safetensors"
    whole = evaluate("--tokens", 64, "--batch", 4, "--logits", path)
    tensors = load(path)
    text = (project.parent / "valid.txt").read_text()
    vocabulary = sorted(set((project.parent / "train.txt").read_text()))
    ids = [vocabulary.index(character) for character in text[:65]]
    assert tensors["ids"].dtype == numpy.int64 and tensors["logits"].dtype == numpy.float32
    assert tensors["ids"].flatten().tolist() == ids[:64]
    logits = tensors["logits"].astype(numpy.float64).reshape(64, len(vocabulary))
    logits -= logits.max(axis=1, keepdims=True)
    scores = logits - numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))
    loss = -scores[numpy.arange(64), ids[1:]].mean()
    assert whole["loss"] == pytest.approx(loss, abs=1e-6)


def generated(wavroute, run, *more):
    arguments = ["--prompt", "the ", "--tokens", 12, "--json", "--precision", "fp32", *more]
    return json.loads(assert_ok(wavroute("generate", run, *arguments)))


def test_generate_repeats_with_its_seed_alone(wavroute, run):
    first = generated(wavroute, run, "--seed", 3)
    assert first["tokens"] == 12 and len(first["text"]) == 12 and first["prompt_tokens"] == 4
    assert generated(wavroute, run, "--seed", 3)["text"] == first["text"]
    assert generated(wavroute, run, "--seed", 4)["text"] != first["text"]
    stream = ["--prompt", "the ", "--tokens", 12, "--precision", "fp32", "--seed", 3]
    assert assert_ok(wavroute("generate", run, *stream)) == f"the {first['text']}\n"


def test_temperature_zero_is_top_k_of_one(wavroute, run):
    greedy = generated(wavroute, run, "--temperature", 0)["text"]
    assert generated(wavroute, run, "--top-k", 1, "--seed", 5)["text"] == greedy
    assert generated(wavroute, run, "--top-p", 1e-6, "--seed", 6)["text"] == greedy


def test_report_is_one_page_that_needs_no_network(wavroute, run, tmp_path):
    page = tmp_path / "page.html"
    assert_ok(wavroute("report", run, "--out", page))
    text = page.read_text()
    assert "<html" in text and 'src="http' not in text and 'href="http' not in text
    assert_error(wavroute("report", tmp_path), tmp_path)
