"""Loads the pages of `wavroute report` in a headless browser, where one is installed."""

import json
import math
import re
import shutil
import subprocess
import zlib

import pytest
from paths import call

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HOSTILE = "</script><img src=x onerror=alert(1)> & \"quoted\" 'label'"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")


def browse(page, profile, *flags, fragment=""):
    """Standard output and error of the browser after it has loaded the page."""
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=3000",
        f"--user-data-dir={profile}", *flags, page.as_uri() + fragment,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def dom(page, tmp_path, fragment="", script=None, width=1200):
    """The document once its script has run, and then `script`, if any is given."""
    if script is not None:
        text = page.read_text().replace("</body>", f"<script>{script}</script></body>")
        page = page.with_name("scripted.html")
        page.write_text(text)
    out, err = browse(
        page, tmp_path / "profile", "--dump-dom", f"--window-size={width},1000", fragment=fragment
    )
    assert "CONSOLE" not in err, err  # an error, or something refused by the page's policy
    root = re.search(r"<html[^>]*>", out).group(0)
    assert "data-error" not in root, root
    assert 'data-ready="1"' in root, root
    return out


def press(text):
    """A script that presses the first of the chart's buttons with this text."""
    buttons = "[...document.querySelectorAll('.choice button')]"
    return f"{buttons}.find((button) => button.textContent === '{text}').click()"


def loss_at(step, offset):
    return 1.5 + offset + 4 * math.exp(-step / 30)


def make_run(folder, scheme, depth=12, seed=1, label=None, validation=True, routing=None):
    folder.mkdir(parents=True)
    rows = []
    for step in range(1, 101):
        row = {"step": step, "tokens": step * 64, "loss": loss_at(step, 0.1 * seed)}
        if validation and step % 20 == 0:
            row |= {"val_loss": loss_at(step, 0.1 * seed + 0.05), "bits_per_byte": 2.0}
        rows.append(json.dumps(row))
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    summary = {
        "scheme": scheme, "label": label or scheme, "layers": depth, "seed": seed, "steps": 100,
        "val_loss": loss_at(100, 0.1 * seed + 0.05) if validation else None, "status": "finished",
        "tokens_per_s": 1000.0 * seed, "peak_rss_bytes": 2**30, "parameters": 1e6,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    if routing:
        (folder / "routing.json").write_text(json.dumps(routing))
    return folder


def routing_of_wav():
    def source(label, kind, weight):
        return {"label": label, "type": kind, "weight": weight}

    first = [source("e", "summary", 0.5), source("S1", "summary", 0.5)]
    second = [source("e", "summary", 0.25), source("S1", "summary", 0.5),
              source("P1", "phase", 0.125), source("Q1", "split", 0.125)]  # fmt: skip
    return {
        "scheme": "wav", "step": 100, "tokens": 640,
        "sublayers": [
            {"sublayer": 2, "layer": 0, "kind": "mlp", "sources": first},
            {"sublayer": 3, "kind": "read_out", "sources": second},
        ],
        "gates": [{"sublayer": 1, "kind": "attention", "mean": 0.9, "p10": 0.8, "p90": 1.0}],
        "depth": {"mean": 1.5, "histogram": [2, 2]},
    }  # fmt: skip


def report(folders, out):
    done = call("wavroute", "report", *folders, "-o", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out)
    return out


@pytest.fixture
def four_runs(tmp_path):
    folders = [
        make_run(tmp_path / "p1", "prenorm", seed=1),
        make_run(tmp_path / "p2", "prenorm", seed=2),
        make_run(tmp_path / "w1", "wav", seed=1, routing=routing_of_wav()),
        make_run(tmp_path / "w2", "wav", seed=2),
    ]
    return report(folders, tmp_path / "report.html")


def test_every_run_is_one_curve(four_runs, tmp_path):
    document = dom(four_runs, tmp_path)
    curves = re.findall(r'<g class="curve".*?</g>', document)
    assert len(curves) == 4
    for curve in curves:
        assert 'class="train"' in curve and 'class="validation"' in curve
        assert curve.count('class="point"') == 5
        assert "NaN" not in curve
    assert 'class="tooltip" role="status" hidden' in document


def test_one_run_without_validation_is_drawn_as_training_loss(tmp_path):
    folder = make_run(tmp_path / "run", "prenorm", validation=False)
    document = dom(report([folder], tmp_path / "report.html"), tmp_path)
    curves = re.findall(r'<g class="curve".*?</g>', document)
    assert len(curves) == 1
    assert 'class="train alone"' in curves[0] and 'class="point"' not in curves[0]


def test_twelve_runs_share_the_page(tmp_path):
    folders = [
        make_run(tmp_path / f"{depth}-{seed}", "wav", depth=depth, seed=seed)
        for depth in (12, 24, 48) for seed in (1, 2, 3, 4)
    ]  # fmt: skip
    page = report(folders, tmp_path / "report.html")
    document = dom(page, tmp_path)
    curves = re.findall(r'<g class="curve"[^>]*>', document)
    assert len(curves) == 12
    assert sum('display="none"' in curve for curve in curves) == 8  # one depth is shown at first
    document = dom(page, tmp_path, script=press("all"))
    assert not re.search(r'<g class="curve"[^>]*display', document)


def test_the_tooltip_gives_every_series_at_the_step(four_runs, tmp_path):
    document = dom(four_runs, tmp_path, fragment="#test-hover")
    tooltip = re.search(r'<div class="tooltip" role="status"(?! hidden).*?</div>', document).group(0)
    step = int(re.search(r"<b>Step (\d+)</b>", tooltip).group(1))
    assert 45 <= step <= 55
    # Validation is that of the last evaluation before the step, by seed.
    assert "validation at 40" in tooltip
    for seed in (1, 2):
        value = f"{loss_at(40, 0.1 * seed + 0.05):.4f}"
        assert tooltip.count(f"<td class=\"number\">{value}</td>") == 2
        assert f"prenorm, seed {seed}" in tooltip and f"wav, seed {seed}" in tooltip
    assert 'class="crosshair"' in document


def test_the_legend_hides_and_shows_a_scheme(four_runs, tmp_path):
    click = "document.querySelectorAll('.legend button')[1].click();"
    curves = re.findall(r'<g class="curve"[^>]*>', dom(four_runs, tmp_path, script=click))
    assert ["none" in curve for curve in curves] == [False, False, True, True]
    curves = re.findall(r'<g class="curve"[^>]*>', dom(four_runs, tmp_path, script=click * 2))
    assert not any("none" in curve for curve in curves)


def test_differences_are_drawn_seed_by_seed(four_runs, tmp_path):
    document = dom(four_runs, tmp_path, script=press("difference to prenorm"))
    points = [
        curve.count('class="point"') for curve in re.findall(r'<g class="curve".*?</g>', document)
    ]
    assert points == [0, 0, 5, 5]  # the reference itself has none


def test_seeds_are_drawn_as_one_band_a_scheme(four_runs, tmp_path):
    document = dom(four_runs, tmp_path, script=press("band"))
    bands = re.findall(r'<g class="seeds".*?</g>', document)
    assert len(bands) == 2
    for band in bands:
        assert band.count('class="band"') == 1 and band.count('class="point"') == 5
        assert "NaN" not in band
    assert "from the lowest to the highest" in document


def test_runs_are_grouped_by_any_key_that_differs(tmp_path):
    folders = []
    for seed, lr in ((1, "0.001"), (2, "0.001"), (1, "0.01"), (2, "0.01")):
        folders.append(make_run(tmp_path / f"{lr}-{seed}", "wav", seed=seed))
        (folders[-1] / "config.toml").write_text(
            f"[model]\nlayers = 12\n[optimizer]\nlr = {lr}\n[train]\nseed = {seed}\n"
        )
    page = report(folders, tmp_path / "report.html")
    script = (
        "const by = document.getElementById('group'); by.value = 'optimizer.lr';"
        "by.dispatchEvent(new Event('change'));"
    )
    document = dom(page, tmp_path, script=script)
    select = re.search(r'<select id="group">.*?</select>', document).group(0)
    assert re.findall(r'value="([^"]*)"', select) == ["label", "optimizer.lr", "seed"]
    legend = re.search(r'<div class="legend">.*?</div>', document).group(0)
    assert re.findall(r"</svg>([^<]*)</button>", legend) == ["0.001", "0.01"]
    colors = re.findall(r'<g class="curve".*?stroke:var\(--series-(\d)\)', document)
    assert colors == ["0", "0", "1", "1"]


def test_arrow_keys_read_values(four_runs, tmp_path):
    script = (
        "document.querySelector('#curves svg[tabindex]').dispatchEvent("
        "new KeyboardEvent('keydown', { key: 'ArrowRight' }))"
    )
    assert "<b>Step 50</b>" in dom(four_runs, tmp_path, script=script)


def test_routing_shows_a_cell_per_weight_gates_and_depth(four_runs, tmp_path):
    document = dom(four_runs, tmp_path, fragment="#test-hover")
    opacities = [float(v) for v in re.findall(r'class="cell"[^>]*fill-opacity="([^"]*)"', document)]
    weights = sorted([0.5, 0.5, 0.25, 0.5, 0.125, 0.125])
    assert sorted(opacities) == pytest.approx([math.sqrt(w) for w in weights], abs=1e-3)
    assert "read-out reads S1 (summary)" in document
    assert "sublayer 1, attention: 0.9000" in document
    assert "1 layers: 50.00 %" in document


def test_a_hostile_label_stays_text(tmp_path):
    folder = make_run(tmp_path / "run", "wav", label=HOSTILE, routing=routing_of_wav())
    other = make_run(tmp_path / "other", "prenorm")
    document = dom(report([folder, other], tmp_path / "report.html"), tmp_path, "#test-hover")
    assert "<img" not in document
    assert document.count("&lt;img src=x onerror=alert(1)&gt;") >= 4  # table, legend, bars, tooltip


@pytest.mark.parametrize("width", [500, 800, 1600])
def test_nothing_is_wider_than_the_window(four_runs, tmp_path, width):
    script = (
        "document.documentElement.dataset.wide ="
        " document.documentElement.scrollWidth > window.innerWidth ? 'yes' : 'no'"
    )
    assert 'data-wide="no"' in dom(four_runs, tmp_path, script=script, width=width)


def test_a_missing_folder_is_an_error_with_a_hint(tmp_path):
    done = call("wavroute", "report", tmp_path / "none")
    assert done.returncode == 2
    assert str(tmp_path / "none") in done.stderr and "hint:" in done.stderr


def test_a_single_run_gets_its_page_in_its_folder(tmp_path):
    folder = make_run(tmp_path / "run", "wav")
    assert call("wavroute", "report", folder).returncode == 0
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def first_pixel(png):
    """The top left pixel; whatever the row's filter, its neighbours there are zero."""
    data, at = b"", 8
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        data += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    return tuple(zlib.decompress(data)[1:4])


def test_the_page_follows_the_systems_light_or_dark(four_runs, tmp_path):
    ground = {}
    for name, scheme in (("light", 1), ("dark", 0)):
        picture = tmp_path / f"{name}.png"
        browse(
            four_runs, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1200,1600",
            f"--blink-settings=preferredColorScheme={scheme}",
        )  # fmt: skip
        ground[name] = first_pixel(picture.read_bytes())
    assert min(ground["light"]) > 240 and max(ground["dark"]) < 40
