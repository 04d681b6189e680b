"""wavroute program: searches for layers that a model does without, and programs by text."""

import json

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets, write_project

LAYERS = 4
SEARCH = ("--budget", 12, "--tokens", 200, "--held-out", 300, "--context", 16)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def text(project):
    return project.parent / "train.txt"


@pytest.fixture(scope="module")
def run(project):
    out = project.parent / "run"
    values = sets(model__layers=LAYERS, residual__scheme="wav", residual__blocks=2)
    assert_ok(paths.call("wavroute", "train", project, "--out", out, *values))
    return out


@pytest.fixture(scope="module")
def found(run, text):
    folder = run.parent
    result = paths.call("wavroute", "program", "search", run, "--data", text, *SEARCH, "--json",
                        "--out", folder / "page.html", "--save", folder / "p.json",
                        "--at-most", 3)
    return json.loads(assert_ok(result))


def test_a_search_scores_the_whole_model_and_shorter_programs(found):
    programs = found["programs"]
    whole = programs[-1]
    assert whole["found_by"] == "whole model" and whole["layers"] == list(range(LAYERS))
    assert {program["found_by"] for program in programs[:-1]} == {"greedy removal", "tree search"}
    for by in ("greedy removal", "tree search"):
        own = [program for program in programs if program["found_by"] == by]
        losses = [program["loss"] for program in own]
        assert losses == sorted(losses, reverse=True), "a longer program is there for its loss"
        assert [program["count"] for program in own] == sorted(p["count"] for p in own)
    for program in programs:
        assert program["count"] == len(program["layers"]) and program["ms_per_token"] > 0


def test_held_out_losses_are_those_of_eval(wavroute, found, run, text, tmp_path):
    """eval of the same tokens, cut out of the text: a token is a character here."""
    part = tmp_path / "part.txt"
    part.write_text(text.read_text()[200:501])
    for program in found["programs"][::2]:
        scored = json.loads(assert_ok(wavroute(
            "eval", run, "--data", part, "--context", 16, "--tokens", 300, "--program",
            program["program"], "--json")))
        assert scored["tokens"] == 300
        assert abs(scored["loss"] - program["held_out_loss"]) < 1e-4


def test_the_page_has_every_program_and_loads_nothing(found, run):
    page = (run.parent / "page.html").read_text()
    for program in found["programs"]:
        assert f"<td>{program['program']}</td>" in page
    assert page.count("<svg") == 2 and "http" not in page.replace("http-equiv", "")


def test_a_saved_program_is_the_best_short_one_and_runs(wavroute, found, run, text):
    saved = json.loads((run.parent / "p.json").read_text())
    short = [program for program in found["programs"] if program["count"] <= 3]
    assert saved == min(short, key=lambda program: program["loss"])["layers"]
    by_file, by_list = (
        json.loads(assert_ok(wavroute("eval", run, "--data", text, "--tokens", 100, "--program",
                                      program, "--json")))["loss"]
        for program in (f"@{run.parent / 'p.json'}", ",".join(map(str, saved)))
    )
    assert by_file == by_list


def test_another_model_stands_beside_it(wavroute, run, project, text, tmp_path):
    out = tmp_path / "dropped"
    values = sets(model__layers=LAYERS, residual__scheme="layerdrop")
    assert_ok(wavroute("train", project, "--out", out, *values))
    result = wavroute("program", "search", run, "--data", text, *SEARCH, "--json", "--beside", out)
    models = json.loads(assert_ok(result))["models"]
    assert [(model["program"], model["count"]) for model in models] == [
        ("all layers", LAYERS), ("0,2", LAYERS / 2)]


@pytest.fixture(scope="module")
def predictor(run, text):
    out = run.parent / "choice.json"
    result = paths.call("wavroute", "program", "train", run, "--data", text, "--out", out,
                        "--budget", 10, "--tokens", 100, "--texts", 16, "--prompt", 4,
                        "--length", 8, "--json")
    return out, json.loads(assert_ok(result))


def test_a_predictor_is_judged_by_the_best_fixed_program_of_equal_cost(predictor):
    _, document = predictor
    assert sum(program["chosen"] for program in document["programs"]) == document["texts"] == 8
    mean = sum(p["chosen"] * p["count"] for p in document["programs"]) / document["texts"]
    assert abs(mean - document["chosen"]["mean_layers"]) < 1e-9
    fixed = document["fixed"]
    assert fixed["count"] <= LAYERS * 3 // 4
    short = [p for p in document["programs"] if p["count"] <= LAYERS * 3 // 4]
    assert fixed["program"] == min(short, key=lambda p: p["loss"])["program"]
    difference = document["chosen"]["held_out_loss"] - fixed["held_out_loss"]
    assert abs(difference - document["difference"]["mean"]) < 1e-9
    beats = (document["chosen"]["mean_layers"] <= 1.01 * fixed["count"]
             and difference + document["difference"]["half_width"] < 0)
    assert document["beats_fixed"] == beats
    assert ("does not beat" in document["verdict"]) != beats


def test_each_text_gets_the_program_that_is_chosen_for_it(wavroute, predictor, run, text,
                                                          tmp_path):
    out, document = predictor
    prompts = tmp_path / "prompts.txt"
    words = text.read_text().split()
    lines = [" ".join(words[5 * i:5 * i + 5]) for i in range(6)]
    prompts.write_text("\n".join(lines) + "\n")
    chosen = [json.loads(line) for line in assert_ok(wavroute(
        "generate", run, "--prompts", prompts, "-n", 4, "--temperature", 0, "--program",
        f"auto:{out}", "--json")).splitlines()]
    assert [one["prompt"] for one in chosen] == lines
    known = {program["program"] for program in document["programs"]}
    for one in chosen:
        assert one["program"] in known
        alone = json.loads(assert_ok(wavroute(
            "generate", run, "--prompt", one["prompt"], "-n", 4, "--temperature", 0, "--program",
            one["program"], "--json")))
        assert alone["ids"] == one["ids"]
    scored = json.loads(assert_ok(wavroute(
        "eval", run, "--data", text, "--tokens", 100, "--program", f"auto:{out}", "--json")))
    assert min(p["count"] for p in document["programs"]) <= scored["mean_depth"] <= LAYERS + 1


def test_wrong_use_is_refused(wavroute, run, predictor, text, tmp_path):
    search = ("program", "search", run, "--data", text)
    assert_error(wavroute(*search, "--tokens", 10**9), "a text of at least")
    assert_error(wavroute(*search, "--program", "0-1"), "a model without a program")
    assert_error(wavroute(*search, *SEARCH, "--out", tmp_path / "no" / "page.html"), "no")
    assert_error(wavroute("program", "search", run), "--data")
    assert_error(wavroute("program"), "subcommand")
    broken = tmp_path / "p.json"
    broken.write_text("[0, 9]")
    assert_error(wavroute("eval", run, "--data", text, "--program", f"@{broken}"),
                 "layers 0 to 3", "9")
    assert_error(wavroute("eval", run, "--data", text, "--program", f"auto:{broken}"),
                 "a layer program predictor")
    choice = ("--program", f"auto:{predictor[0]}")
    assert_error(wavroute("chat", run, *choice), "one program")
    assert_error(wavroute("inspect", run, "--data", text, *choice), "one program")


def test_a_scheme_without_programs_is_refused(wavroute, project, text, tmp_path):
    out = tmp_path / "act"
    assert_ok(wavroute("train", project, "--out", out, *sets(residual__scheme="act")))
    assert_error(wavroute("program", "search", out, "--data", text), "takes layer programs")
