"""The command line: exit codes, readable errors, nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from streamproc.cli import Address, Commands, Instant, Seconds, SecretReference, _lines, cli
from streamproc.errors import BadRecord, Bug, Fault, InvalidJob, StreamprocError, Unavailable

HEAVY = ("pyarrow", "duckdb", "aiohttp", "rich", "pydantic", "sqlglot", "structlog", "yaml", "obstore")


def failing(error: Exception) -> click.Group:
    @click.group(cls=Commands)
    @click.option("--debug", is_flag=True)
    def group(debug: bool) -> None: ...

    @group.command()
    def fail() -> None:
        raise error

    return group


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InvalidJob([Fault("j.yaml", 3, "b"), Fault("j.yaml", 1, "a")]), 2, "j.yaml:1: a\nj.yaml:3: b\n"),
        (Unavailable("kafka at h:1 does not answer"), 1, "streamproc: kafka at h:1 does not answer\n"),
        (BadRecord("clicks shard 0 offset 7: no JSON"), 1, "streamproc: clicks shard 0 offset 7: no JSON\n"),
    ],
)
def test_an_error_is_a_message_and_an_exit_code(error: StreamprocError, code: int, text: str) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, text, "")


@pytest.mark.parametrize("error", [Bug("two commits of epoch 3"), KeyError("k")])
def test_our_own_fault_asks_for_a_report(error: Exception) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == 1
    assert f"{type(error).__name__}: {error}; this is a fault of streamproc" in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(failing(Unavailable("gone")), ["--debug", "fail"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "in fail\n    raise error" in result.stderr


def test_the_commands() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    looks, operates = (
        {"check", "explain", "infer", "test", "schema", "policy", "status", "leases", "epochs"},
        {"run", "worker", "rollback", "demo"},
    )
    assert set(cli.commands) == looks | operates
    assert "..." not in result.stdout.split("Commands:")[1], "a summary is cut"


@pytest.mark.parametrize(
    "arguments", [["fly"], ["run"], ["run", "--fly", "j.yaml"], ["check"], ["rollback", "j.yaml"], ["demo", "--source", "x"]]
)
def test_a_wrong_command_exits_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, arguments).exit_code == 2


@pytest.mark.parametrize("command", ["run", "worker", "explain", "status", "leases", "epochs"])
def test_a_missing_job_file_exits_2(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, [command, str(tmp_path / "none.yaml")])
    assert (result.exit_code, result.stderr) == (2, f"{tmp_path}/none.yaml:1: cannot be read: No such file or directory\n")


def test_drain_is_for_bounded_runs() -> None:
    result = CliRunner().invoke(cli, ["run", "--drain", "j.yaml"])
    assert result.exit_code == 2
    assert "use it together with --available-now" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--listen", "9108", "'9108' is no address; write for example 127.0.0.1:9108"),
        ("--listen", "127.0.0.1:http", "is no address"),
        ("--drain-timeout", "30", "is not a duration"),
        ("--admin-token", "sesame", "never as a literal"),
        ("--admin-token", "secret://env/NOT_THERE", "secret://env/NOT_THERE is not set"),
        ("--admin-token", "${NOT_THERE}", "${NOT_THERE} is not set"),
        ("--admin-token", "secret://env/EMPTY", "secret://env/EMPTY is empty"),
    ],
)
def test_a_service_is_told_clearly(option: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    result = CliRunner().invoke(cli, ["worker", "j.yaml", option, value])
    assert result.exit_code == 2
    assert said in result.stderr
    assert "sesame" not in result.stderr


def test_options_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN", "sesame")
    assert Address().convert("[::1]:9108", None, None) == ("::1", 9108)
    assert Seconds().convert("1 minute 30 seconds", None, None) == 90
    for reference in ("secret://env/ADMIN", "${ADMIN}"):
        secret = SecretReference().convert(reference, None, None)
        assert (secret.reveal(), repr(secret)) == ("sesame", f"Secret({reference})")


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-02", 86_400_000_000),
        ("1970-01-01 00:00:00.000001", 1),
    ],
)
def test_instants(text: str, us: int) -> None:
    assert Instant().convert(text, None, None) == us


def test_a_time_that_is_none_says_how_to_write_it() -> None:
    result = CliRunner().invoke(cli, ["rollback", "j.yaml", "--to", "yesterday"])
    assert result.exit_code == 2
    assert "'yesterday' is no time; write for example 2026-01-01T00:00:00Z" in result.stderr


def test_nested_values_as_lines() -> None:
    value = {"epoch": 3, "watermark": None, "sources": {"k": {"0": "41"}}, "runs": [1, 2], "late": {}}
    assert _lines(value) == "epoch: 3\nwatermark: none\nsources:\n  k:\n    0: 41\nruns:\n  - 1\n  - 2\nlate: none"


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, streamproc.cli; print([m for m in {HEAVY} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_python_dash_m() -> None:
    shown = subprocess.run([sys.executable, "-m", "streamproc", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("streamproc ")
