"""train --dry-run --devices N: the plan that docs/scaling.md explains, as text and as JSON."""

import json

import paths
import pytest
from cli_tools import assert_error, assert_ok, sets, write_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("scaling"))


def dry_run(project, *arguments, **values):
    return paths.call("wavroute", "train", project, "--dry-run", *arguments,
                      *sets(train__device="cpu", **values))  # fmt: skip


def strategies(project, devices, **values) -> dict:
    plan = json.loads(assert_ok(dry_run(project, "--devices", devices, "--json", **values)))
    return {row["strategy"]: row for row in plan["strategies"]} | {"plan": plan}


def test_one_device_takes_what_the_dry_run_says(project):
    one = json.loads(assert_ok(dry_run(project, "--json", train__micro_batch=2)))
    many = strategies(project, 1, train__micro_batch=2)
    assert many["plan"]["parameters"] == one["parameters"]
    assert many["plan"]["flops_per_token"] == one["flops_per_token"]
    for name in ("data parallel", "ZeRO-1", "FSDP", "tensor parallel", "pipeline"):
        row = many[name]
        states = row["parameter_bytes"] + row["gradient_bytes"] + row["optimizer_bytes"]
        assert states == one["memory"]["parameter_bytes"]
        assert row["activation_bytes"] == pytest.approx(one["memory"]["activation_bytes"])
        assert row["sent_bytes_per_step"] == 0
        assert row["fits"] is True


def test_two_devices_send_what_a_ring_sends(project):
    two = strategies(project, 2)
    parameters = two["plan"]["parameters"]
    assert two["data parallel"]["sent_bytes_per_step"] == 2 * 0.5 * 4 * parameters
    assert two["ZeRO-1"]["sent_bytes_per_step"] == 2 * 0.5 * 4 * parameters
    assert two["ZeRO-1"]["optimizer_bytes"] == 4 * parameters
    # fp32 gathered twice and reduced once, in the one pass of a device's one row.
    assert two["FSDP"]["sent_bytes_per_step"] == 0.5 * 12 * parameters
    # Two layers, one a stage. The block of four sublayers is half done: e, S and P of 16 floats for
    # each of 2 x 16 tokens (Q is S until then).
    assert two["pipeline"]["sent_bytes_per_step"] == 3 * 16 * 4 * 2 * 16
    assert two["plan"]["pipeline_boundaries"] == [{"layer": 1, "tensors": 3, "bytes_per_token": 3 * 64}]


def test_the_text_has_every_strategy_and_says_what_is_not_possible(project):
    text = assert_ok(dry_run(project, "--devices", 3))
    assert "nothing was trained" in text
    assert "3 devices don't divide a train.batch of 2" in text
    assert "3 stages of 2 layers" in text
    assert not (project.parent / "runs").exists()


def test_a_model_that_this_machine_has_no_memory_for_is_planned(project):
    large = dict(model__width=8192, model__layers=80, model__heads=64, model__hidden=28672, train__batch=64,
                 residual__blocks=5)  # fmt: skip
    rows = strategies(project, 64, **large)
    assert rows["plan"]["parameters"] > 60e9
    assert rows["data parallel"]["fits"] is False
    assert rows["FSDP"]["optimizer_bytes"] == pytest.approx(8 * rows["plan"]["parameters"] / 64)


@pytest.mark.parametrize("given", ["0", "many", "9999999999999999999"])
def test_a_wrong_number_of_devices_is_refused(project, given):
    assert_error(dry_run(project, f"--devices={given}"), "--devices", "an integer from 1 to")


@pytest.mark.parametrize("option", ["--devices=4", "--json"])
def test_plans_are_of_dry_runs_alone(project, option):
    done = paths.call("wavroute", "train", project, option)
    assert_error(done, "--dry-run beside " + option.split("=")[0])
    assert not (project.parent / "runs").exists()
