"""What wavroute compare refuses before any cell starts, and what it takes of an earlier call."""

import fcntl
import os
import re
import shutil
import subprocess

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets, write_project
from compare_tools import VARIANTS, losses, write_grids


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_grids(tmp_path_factory.mktemp("compare"))


def test_a_variant_that_contradicts_a_depth_is_found_before_training(wavroute, project, tmp_path):
    out = tmp_path / "out"
    values = sets(compare__depths="[2, 3]", residual__blocks=2)
    assert_error(wavroute("compare", project / "grid.toml", "--out", out, *values), "blocks", "3")
    assert not out.exists()


def test_a_resumed_grid_takes_no_result_of_another_setting_or_text(wavroute, tmp_path):
    folder = write_project(tmp_path).parent
    config, out = folder / "variants.toml", tmp_path / "out"
    calm = VARIANTS.replace("1e30", "1e-3")
    config.write_text(calm)
    call = ["compare", config, "--out", out, "--speed-rounds", 0]
    assert_ok(wavroute(*call))
    before = losses(out)

    stored = (out / "config.toml").read_bytes()
    config.write_text(calm.replace("1e-4", "2e-4"))  # under the same label
    assert_error(wavroute(*call, "--resume", "auto"), "mild-L2-s1")
    assert (out / "config.toml").read_bytes() == stored  # a refused call changes nothing
    config.write_text(calm.replace("seeds = [1]", "seeds = [1, 2]"))
    text = (folder / "train.txt").read_text()
    (folder / "train.txt").write_text(text + text)
    refused = wavroute(*call, "--resume", "auto")
    assert refused.returncode == 2
    assert re.search(r"wavroute: .*one text.*sha256.*prenorm-L2-s1\nhint: ", refused.stderr)
    assert not (out / "cells" / "prenorm-L2-s2").exists()  # nothing had started

    (folder / "train.txt").write_text(text)
    for cell in ("prenorm-L2-s2", "wild-L2-s2", "mild-L2-s2"):
        for left in (out / "cells" / cell / "summary.json", out / "configs" / f"{cell}.toml"):
            left.unlink(missing_ok=True)
        if (out / "cells" / cell).exists():
            for path in sorted((out / "cells" / cell).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    elsewhere = out / ".wavroute-tmp-compare.json-0123456789abcdef-1-1-0"
    elsewhere.write_text("half of it")
    done = wavroute(*call, "--resume", "auto")
    assert_ok(done)
    assert elsewhere.exists() and f"left {elsewhere}: it is half-written by another" in done.stderr
    after = losses(out)
    assert {cell: after[cell] for cell in before} == before and len(after) == 6


def test_a_resumed_grid_knows_its_text_by_what_it_holds(wavroute, tmp_path):
    """Moved, changed, and gone when no cell needs it any more."""
    folder, out = write_project(tmp_path).parent, tmp_path / "out"
    grid = VARIANTS[: VARIANTS.index("[[")]
    (folder / "grid.toml").write_text(grid)
    assert_ok(wavroute("compare", folder / "grid.toml", "--out", out, "--speed-rounds", 0))
    first = losses(out)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("small.toml", "train.txt", "valid.txt"):
        (folder / name).rename(elsewhere / name)
    (elsewhere / "grid.toml").write_text(grid.replace("seeds = [1]", "seeds = [1, 2]"))
    call = ["compare", elsewhere / "grid.toml", "--out", out, "--speed-rounds", 0,
            "--resume", "auto"]  # fmt: skip
    text = (elsewhere / "train.txt").read_text()
    (elsewhere / "train.txt").write_text(text + " the")
    assert_error(wavroute(*call), "one text", "prenorm-L2-s1")
    (elsewhere / "train.txt").write_text(text)
    assert_ok(wavroute(*call))
    assert losses(out)["prenorm-L2-s1"] == first["prenorm-L2-s1"] and len(losses(out)) == 2
    assert f'train = "{elsewhere}/train.txt"' in (out / "config.toml").read_text()

    (elsewhere / "train.txt").unlink()
    again = wavroute(*call)
    assert_ok(again)
    assert "text of finished cells is not looked at" in again.stderr and len(losses(out)) == 2
    assert_error(wavroute(*call, *sets(compare__seeds="[1, 2, 3]")), "prenorm-L2-s3", "train.txt")


def test_a_folder_is_locked_before_what_lies_there_is_read(wavroute, project, tmp_path):
    (tmp_path / "config.toml").write_text("being written by ano")
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        call = ["compare", project / "grid.toml", "--out", tmp_path, "--resume", "auto"]
        assert_error(wavroute(*call), "another process is using")
    assert_error(wavroute(*call), "config.toml")


@pytest.mark.parametrize("place", ["out", "data"])
def test_a_name_in_latin_1_is_refused_before_any_cell_starts(project, tmp_path, place):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    for name in ("small.toml", "grid.toml", "train.txt", "valid.txt"):
        shutil.copy(project / name, folder + b"/" + name.encode())
    out = os.path.join(folder if place == "out" else os.fsencode(tmp_path), b"out")
    config = os.path.join(os.fsencode(project) if place == "out" else folder, b"grid.toml")
    calls = [[b"compare", config, b"--out", out], [b"compare", config, b"--out", out, b"--dry-run"]]
    if place == "data":
        calls.append([b"config", b"check", config])
    for call in calls:
        command = [os.fsencode(paths.program("wavroute")), *call]
        result = subprocess.run(command, capture_output=True, timeout=120)
        result.stderr = result.stderr.decode()
        assert_error(result, "UTF-8", "caf\\xe9", "--out" if place == "out" else "data.train")
        assert not os.path.exists(out)


def test_what_this_machine_has_not_is_refused_before_any_cell_starts(wavroute, project, tmp_path):
    config, out = tmp_path / "threads.toml", tmp_path / "out"
    config.write_text(
        VARIANTS[: VARIANTS.index("[[")].replace("small.toml", str(project / "small.toml"))
        + '[[compare.variant]]\nlabel = "many"\ntrain.threads = 100000\n'
    )
    for extra in ([], ["--dry-run"]):
        refused = wavroute("compare", config, "--out", out, *extra)
        assert_error(refused, "cell many-L2-s1", "given 100000")
        assert not out.exists()


LABELS = ["prenorm w/o decay", "x" * 300, ".", "a\\nb"]


@pytest.mark.parametrize("label", LABELS, ids=["slash", "long", "dot", "control"])
def test_a_label_that_a_cell_would_refuse_is_refused_first(wavroute, project, tmp_path, label):
    config, out = tmp_path / "labels.toml", tmp_path / "out"
    config.write_text(
        VARIANTS.replace("small.toml", str(project / "small.toml")).replace('"wild"', f'"{label}"')
    )
    assert_error(wavroute("config", "check", config), "label", "labels.toml")
    if label == LABELS[0]:
        assert_error(wavroute("compare", config, "--out", out, "--dry-run"), "label")
        assert_error(wavroute("compare", config, "--out", out), "label")
    assert not out.exists()


def test_config_check_refuses_what_a_cell_would(wavroute, project):
    blocks = sets(compare__depths="[2, 3]", residual__blocks=2)
    assert_error(wavroute("config", "check", project / "grid.toml", *blocks), "blocks", "3")
    assert_error(wavroute("config", "check", project / "small.toml", *blocks[-2:],
                          *sets(model__layers=3)), "blocks", "3")  # fmt: skip


def test_an_option_goes_to_the_schemes_that_have_it(wavroute, project, tmp_path):
    call = ["compare", project / "grid.toml", "--out", tmp_path / "out"]
    assert_ok(wavroute(*call, "--dry-run", *sets(residual__blocks=2)))
    plain = sets(compare__schemes='["prenorm", "rezero"]')
    assert_error(wavroute(*call, *plain, *sets(residual__blocks=2)), "blocks", "belongs to")
    assert not (tmp_path / "out").exists()


def test_a_missing_text_is_found_before_any_cell_starts(wavroute, project, tmp_path):
    out = tmp_path / "out"
    config = tmp_path / "texts.toml"
    config.write_text(
        VARIANTS.replace("small.toml", str(project / "small.toml"))
        + f'[[compare.variant]]\nlabel = "other"\ndata.valid = "{tmp_path}/none.txt"\n'
    )
    assert_error(wavroute("compare", config, "--out", out), "none.txt")
    assert not out.exists()
