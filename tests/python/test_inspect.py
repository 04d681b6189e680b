"""`wavroute inspect`, and the sizes of layers that a training writes."""

import json
import math
import re

import paths
import pytest
from cli_tools import assert_equal_runs, assert_error, assert_ok, sets, write_project
from test_report_browser import BROWSER, dom

LAYERS = 2
READERS = 2 * LAYERS + 1


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def trained(project):
    """A run of wav that wrote the sizes of its layers at steps 5, 10 and 12."""
    out = project.parent / "trained"
    assert_ok(paths.call("wavroute", "train", project, "--out", out, "-q",
                         *sets(train__log_layers=5)))
    return out


@pytest.fixture(scope="module")
def inspected(project, trained):
    """Its JSON and its page, on two texts, each router put back to its start."""
    page = project.parent / "page.html"
    done = paths.call("wavroute", "inspect", trained, "--data", project.parent / "valid.txt", "--data",
                      project.parent / "train.txt", "--tokens", 100, "--ablate", "--json", "--out", page)
    return json.loads(assert_ok(done)), page


def test_the_json_has_what_scripts_rely_on(inspected):
    document, _ = inspected
    assert document["scheme"] == "wav" and document["scored"] == 200
    names = [sublayer["name"] for sublayer in document["sublayers"]]
    assert names == ["attention 0", "mlp 0", "attention 1", "mlp 1", "read-out"]
    for sublayer in document["sublayers"]:
        assert math.isclose(sum(sublayer["weights"]), 1, abs_tol=1e-6)
        assert len(sublayer["sources"]) == len(sublayer["weights"])
        assert sublayer["entropy"] >= 0 and sublayer["norms"]["stream"] > 0
    assert document["sublayers"][0]["sources"] == ["e"]
    assert document["sublayers"][1]["sources"] == ["e", "S1", "P1", "Q1"]
    matrix = document["depth_mixing"]
    assert [len(row) for row in matrix] == [READERS] * READERS
    assert [[entry is None for entry in row] for row in matrix] == [
        [j > reader for j in range(READERS)] for reader in range(READERS)]
    assert matrix[0][0] == 1
    for verdict in document["verdicts"]:
        assert set(verdict) == {"text", "metric", "value", "threshold", "sublayer"}


def test_groups_of_tokens_are_those_of_the_text(inspected):
    document, _ = inspected
    tokens = document["tokens"]
    assert tokens["letters"]["tokens"] + tokens["spaces"]["tokens"] == 200
    assert tokens["digits"]["tokens"] == 0
    assert len(tokens["letters"]["sublayers"]) == READERS


def test_two_texts_stand_side_by_side(inspected):
    document, _ = inspected
    texts = document["texts"]
    assert [text["data"].rsplit("/", 1)[1] for text in texts] == ["valid.txt", "train.txt"]
    assert [text["scored"] for text in texts] == [100, 100]
    mean = sum(text["loss"] for text in texts) / 2
    assert math.isclose(document["loss"], mean, rel_tol=1e-9)
    assert len(texts[1]["sublayers"]) == READERS


def test_the_loss_is_that_of_eval(wavroute, project, trained):
    data = ("--data", project.parent / "valid.txt", "--tokens", 64, "--json")
    inspection = json.loads(assert_ok(wavroute("inspect", trained, *data)))
    evaluation = json.loads(assert_ok(wavroute("eval", trained, *data)))
    assert inspection["scored"] == evaluation["tokens"]
    assert math.isclose(inspection["loss"], evaluation["loss"], rel_tol=1e-5)
    assert inspection["sublayers"][-2]["loss_if_last"] == inspection["loss"]


def test_ablation_and_starts_are_of_every_router(inspected):
    document, _ = inspected
    assert [entry["sublayer"] for entry in document["ablation"]] == [2, 3, 4, 5]
    # The schedule of the run: 12 steps, the rate at its peak after the first, then a cosine.
    rates = [1e-3 * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - 1) / 11))) for step in range(1, 13)]
    rates[-1] = 1e-4
    assert math.isclose(document["random_walk_reach"], math.sqrt(sum(r * r for r in rates)),
                        rel_tol=1e-9)
    by_name = {entry["name"]: entry for entry in document["coefficients"]}
    assert len(by_name) == 4 * 3
    query = by_name["model.output_attn_res_proj.weight"]
    assert query["sublayer"] == 5 and query["moved"] > 0
    assert math.isclose(query["ratio"], query["moved"] / document["random_walk_reach"])
    metrics = [verdict["metric"] for verdict in document["verdicts"]]
    assert metrics.count("reach_ratio") == 12 and metrics.count("ablation") == 4


def test_tables_are_printed_for_people(wavroute, project, trained):
    out = assert_ok(wavroute("inspect", trained, "--data", project.parent / "valid.txt",
                             "--tokens", 64))
    lines = out.splitlines()
    assert lines[0].startswith("wav, 2 layers of width 16: loss ")
    assert re.match(r"sublayer +stream +update +gradient +cosine +loss if last +age", lines[2])
    assert any(line.startswith("letters ") for line in lines)
    assert " of 12 coefficients left their start" in out


# Every scheme once, untrained: the model of 0 steps that --set cannot give is one of one step.
@pytest.mark.parametrize("scheme", ["prenorm", "layerscale", "gated", "act", "mhc_lite"])
def test_other_schemes_are_inspected(wavroute, project, tmp_path, scheme):
    run = tmp_path / "run"
    extra = {"residual__freeze": 0} if scheme == "gated" else {}
    assert_ok(wavroute("train", project, "--out", run, "-q",
                       *sets(residual__scheme=scheme, train__steps=1, **extra)))
    document = json.loads(assert_ok(wavroute("inspect", run, "--data",
                                             project.parent / "valid.txt", "--tokens", 64, "--json")))
    matrix = document["depth_mixing"]
    assert matrix[4][4] is not None and matrix[0][1] is None
    if scheme == "prenorm":
        assert all(entry in (1, None) for row in matrix for entry in row)
        assert document["coefficients"] == []
    if scheme == "layerscale":
        assert math.isclose(matrix[4][1], 0.1, abs_tol=2e-3)
    if scheme == "gated":
        assert math.isclose(document["sublayers"][0]["gate"]["mean"], 0.982, abs_tol=2e-3)
    if scheme == "act":
        assert 1 <= document["depth"]["mean"] <= 2


def test_a_model_without_a_run_has_no_schedule(wavroute, project, trained, tmp_path):
    """A folder of weights, as import writes it."""
    newest = max((trained / "checkpoints").iterdir(), key=lambda path: int(path.name[5:]))
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (model / name).write_bytes((newest / name).read_bytes())
    document = json.loads(assert_ok(wavroute("inspect", model, "--data",
                                             project.parent / "valid.txt", "--tokens", 64, "--json")))
    assert "coefficients" not in document
    assert all(verdict["metric"] != "reach_ratio" for verdict in document["verdicts"])


def test_wrong_use_is_refused(wavroute, project, trained, tmp_path):
    text = project.parent / "valid.txt"
    assert_error(wavroute("inspect", trained, "--data", tmp_path / "none.txt"), "none.txt")
    assert_error(wavroute("inspect", trained), "--data")
    assert_error(wavroute("inspect", tmp_path / "none", "--data", text), "none")
    assert_error(wavroute("inspect", trained, "--data", text, "--tokens", -1), "--tokens")
    assert_error(wavroute("inspect", trained, "--data", text, "--out", tmp_path / "no" / "page.html"),
                 "no", code=wavroute("eval", trained, "--data", text, "--logits",
                                     tmp_path / "no" / "l.safetensors").returncode)
    assert_error(wavroute("inspect", trained, "--data", text, "--program", "0-9"), "0-9")


# ---- during training -------------------------------------------------------------------------


def layer_rows(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "layers" in row]


def test_log_layers_writes_rows_with_every_layer(trained):
    rows = layer_rows(trained)
    assert [row["step"] for row in rows] == [5, 10, 12]
    for row in rows:
        assert len(row["layers"]["stream"]) == READERS
        assert len(row["layers"]["update"]) == READERS - 1
        assert row["layers"]["entropy"][0] is None and row["layers"]["entropy"][4] > 0


def test_log_layers_changes_no_bit_of_the_training(wavroute, project, trained, tmp_path):
    plain, again = tmp_path / "plain", tmp_path / "again"
    assert_ok(wavroute("train", project, "--out", plain, "-q"))
    assert not layer_rows(plain)
    for step in (8, 12):
        left, right = (run / "checkpoints" / f"step_{step}" / "model.safetensors"
                       for run in (plain, trained))
        assert left.read_bytes() == right.read_bytes()
    # A resume may begin to write them, and continues as if never stopped.
    assert_ok(wavroute("train", project, "--out", again, "-q", *sets(train__log_layers=5)))
    for later in (again / "checkpoints").glob("step_12"):
        later.rename(tmp_path / "moved")
    assert_ok(wavroute("train", project, "--out", again, "-q", "--resume", "auto",
                       *sets(train__log_layers=5)))
    assert_equal_runs(again, trained, 12)


# ---- the pages -------------------------------------------------------------------------------


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
def test_the_page_draws_everything(inspected, tmp_path):
    document = dom(inspected[1], tmp_path, fragment="#test-hover")
    assert "NaN" not in re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)
    sections = dict(re.findall(r'<section id="(\w+)"([^>]*)>', document))
    assert set(sections) == {"mixing", "routing", "layers", "tokens"}
    assert not any("hidden" in attributes for attributes in sections.values())
    mixing = document[document.index('<section id="mixing"'):document.index('<section id="routing"')]
    assert mixing.count('class="ground"') == READERS * (READERS + 1) // 2
    assert "train.txt" in mixing  # the choice of texts
    assert document.count('class="tooltip" role="status"') > 4


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
def test_the_report_draws_the_layers_of_a_training(trained, tmp_path):
    page = tmp_path / "report.html"
    assert_ok(paths.call("wavroute", "report", trained, "-o", page))
    document = dom(page, tmp_path)
    layers = document[document.index('<section id="layers"'):document.index('<section id="routing"')]
    assert "hidden" not in layers.split(">")[0]
    assert layers.count('class="validation"') == READERS
    assert "spikes of the loss" in document
