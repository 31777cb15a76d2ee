"""The cluster page: Ray takes its YAML, the command takes its options, and its table is what the plan computes."""

import re
import runpy

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.main import get_command

from flows.cli import main as cli
from flows.config.run import load_run_config
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "cluster.md").read_text()
CLUSTER = ROOT / "docs" / "ray-cluster.yaml"


def commands() -> list[list[str]]:
    lines = [line for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    return [line.partition("gigamask ")[2].split() for line in lines if "gigamask " in line]


def test_ray_takes_the_cluster_file() -> None:
    config = prepare_config(yaml.safe_load(CLUSTER.read_text()))
    validate_config(config)
    workers = config["available_node_types"]["gpu"]
    assert workers["resources"] == {"CPU": 8, "GPU": 1}
    assert workers["max_workers"] == config["max_workers"]


def test_ray_refuses_a_cluster_file_with_a_slip_in_it() -> None:
    config = yaml.safe_load(CLUSTER.read_text().replace("head_node_type: head", "head_node_type: boss"))
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(config))


def test_the_commands_of_the_page_are_taken() -> None:
    assert len(commands()) >= 4
    known = get_command(cli.app).commands  # type: ignore[attr-defined]
    for name, *rest in commands():
        if name == "models":
            continue
        given = known[name].make_context(name, list(rest)).params
        pool = {"address": given.get("ray_address")}
        settings = load_run_config(assignments=given.get("assignments"), dataset=given["dataset"], pool=pool)
        assert settings.pool.address == ("auto" if "--ray-address" in rest else None)


def test_the_table_of_the_page_is_computed() -> None:
    plan = runpy.run_path(str(ROOT / "tests" / "benchmarks" / "paper_plan.py"))
    assumed = plan["Assumptions"]()
    rows = plan["table"]([plan["cost"](what, rate, assumed) for what, rate in plan["RATES"].items()])
    assert "\n".join(rows) in PAGE
    size = plan["size"](assumed)
    assert f"{size.shards:,} shards" in PAGE
    assert f"{size.image_tib:.1f} TiB of images" in PAGE
    assert f"{size.mask_tib:.2f} TiB of mask shards and {size.table_tib:.2f} TiB" in PAGE.replace("\n", " ")
