"""What deploy/ says agrees with the product: metrics, options, times, paths. Linters and servers judge the same files elsewhere."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamproc.cli import cli
from streamproc.metrics import METRICS
from streamproc.testing import run_job_tests

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "streamproc.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((DEPLOY / "prometheus" / "streamproc.rules.yaml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
UNIT = (DEPLOY / "systemd" / "streamproc.service").read_text(encoding="utf-8")
NAMES = {metric.name for metric in METRICS} | {f"{m.name}_bucket" for m in METRICS if m.kind == "histogram"}
METRIC = re.compile(r"(?<![:\w])streamproc_\w+")

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SHOWN = [target["expr"] for panel in PANELS for target in panel["targets"]]
ALL_RULES = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL_RULES if "alert" in rule}


def metrics_in(expression: str) -> set[str]:
    return set(METRIC.findall(expression))


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    shown = set().union(*map(metrics_in, SHOWN))
    assert {name.removesuffix("_bucket") for name in shown} == {metric.name for metric in METRICS}
    assert shown <= NAMES


def test_every_series_of_the_dashboard_is_of_the_chosen_jobs() -> None:
    selected = [found for expression in SHOWN for found in re.findall(r"streamproc_\w+(?:\{[^}]*\})?", expression)]
    assert [one for one in selected if 'job=~"$job"' not in one] == []
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "job"}


def test_panels_have_their_own_numbers_and_places() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert all(panel["title"] and panel["description"] for panel in PANELS)


def test_rules_name_metrics_and_records_that_exist() -> None:
    records = {rule["record"] for rule in ALL_RULES if "record" in rule}
    used = {name for rule in ALL_RULES for name in re.findall(r"\b[a-z_]+:streamproc_\w+:\w+", rule["expr"])}
    assert used <= records
    assert set().union(*(metrics_in(rule["expr"]) for rule in ALL_RULES)) <= NAMES


def test_every_alert_says_what_and_how_bad_and_has_a_test() -> None:
    assert {rule["labels"]["severity"] for rule in ALERTS.values()} <= {"info", "warning", "critical"}
    assert [name for name, rule in ALERTS.items() if rule["annotations"].keys() != {"summary", "description"}] == []
    tests = yaml.safe_load((DEPLOY / "prometheus" / "streamproc.rules.test.yaml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    clears = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fires == clears == set(ALERTS)


def test_the_scrape_keeps_the_names_of_jobs() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    assert all(scrape["honor_labels"] for scrape in config["scrape_configs"])
    assert config["rule_files"] == ["streamproc.rules.yaml"]


def test_the_image_holds_what_the_wheel_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {"pyproject.toml", project["project"]["readme"], *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    build = DOCKERFILE.partition("\nFROM python:${PYTHON}\n")[0]
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", build, re.MULTILINE) for name in line.split()}
    let_in = set(re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    assert copied == let_in == needed


def instruction(name: str) -> str:
    """What stands after the last such instruction of the Dockerfile, continued lines joined."""
    return re.findall(rf"^{name} (.+)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)[-1]


def test_the_image_is_not_root_and_looks_after_its_health() -> None:
    assert all(number.isdecimal() and int(number) > 0 for number in instruction("USER").split(":"))
    check = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    assert "/healthz" in ast.unparse(ast.parse(check[2]))


def worker_options(arguments: list[str]) -> dict[str, Any]:
    """The arguments as the command line reads them; it refuses what it does not know."""
    assert arguments[0] == "worker"
    return cli.commands["worker"].make_context("worker", arguments[1:]).params


def exec_start() -> list[str]:
    return shlex.split(re.findall(r"^ExecStart=(.+)$", UNIT, re.MULTILINE)[0])[1:]


def test_the_command_line_takes_what_image_and_unit_say() -> None:
    image, unit = worker_options(json.loads(instruction("CMD"))), worker_options(exec_start())
    assert image["listen"] == ("0.0.0.0", 9108)
    assert unit["listen"] == ("127.0.0.1", 9108)
    assert image["drain_timeout"] == unit["drain_timeout"] == 30


def test_what_stops_a_worker_waits_longer_than_it_drains() -> None:
    drain_s = worker_options(exec_start())["drain_timeout"]
    unit_s = int(re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)[0])
    compose_s = int(COMPOSE["services"]["worker"]["stop_grace_period"].removesuffix("s"))
    assert min(unit_s, compose_s) >= drain_s + 10
    chart = (DEPLOY / "helm" / "streamproc" / "templates" / "deployment.yaml").read_text(encoding="utf-8")
    assert "terminationGracePeriodSeconds: {{ add .Values.drainTimeoutSeconds 15 }}" in chart


def test_compose_mounts_files_that_are_there_and_nothing_more_than_needed() -> None:
    mounts = [mount.split(":")[0] for service in COMPOSE["services"].values() for mount in service.get("volumes", ())]
    there = [(DEPLOY / "compose" / mount).exists() for mount in mounts if mount.startswith(".")]
    assert there
    assert all(there)
    assert {mount for mount in mounts if not mount.startswith(".")} == set(COMPOSE["volumes"])
    worker = COMPOSE["services"]["worker"]
    assert (worker["read_only"], worker["cap_drop"], worker["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    published = itertools.chain.from_iterable(service.get("ports", ()) for service in COMPOSE["services"].values())
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_compose_scrapes_its_worker() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    assert config["scrape_configs"][0]["static_configs"] == [{"targets": ["worker:9108"]}]


@pytest.mark.parametrize("job", sorted((DEPLOY / "compose" / "jobs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_job_of_compose_passes_its_own_tests(job: Path) -> None:
    results = run_job_tests(job)
    assert results
    assert [(r.name, r.line, r.failure) for r in results if r.failure is not None] == []


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
def test_the_clicks_of_compose_are_rows_of_its_job(tmp_path: Path) -> None:
    """Its script with Kafka's programs replaced: one that succeeds, one that takes three lines."""
    for name, body in (("kafka-topics.sh", "exit 0"), ("kafka-console-producer.sh", f"head -n 3 > {tmp_path}/rows")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    script = COMPOSE["services"]["clicks"]["command"][0].replace("$$", "$").replace("/opt/kafka/bin", str(tmp_path))
    subprocess.run(["sh", "-c", script.replace("/tmp/topic", f"{tmp_path}/topic")], timeout=20, capture_output=True, check=False)
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [row.keys() for row in rows] == [{"user", "page", "ts"}] * 3
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[0]["ts"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    """With a program that is here in the place of the one that would be installed."""
    unit = tmp_path / "streamproc.service"
    unit.write_text(UNIT.replace("/opt/streamproc/bin/streamproc", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_the_unit_is_watched_reloaded_and_fenced_in() -> None:
    for line in ("Type=notify", "DynamicUser=yes", "StateDirectory=streamproc", "ProtectSystem=strict", "NoNewPrivileges=yes"):
        assert f"\n{line}\n" in UNIT
    assert re.search(r"^WatchdogSec=\d+$", UNIT, re.MULTILINE)
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in UNIT
