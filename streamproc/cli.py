"""The command line: parse, call, print. Exit codes: 0 done, 1 the job failed, 2 the job file or the command is wrong.

Everything but click is imported where it is used: `--help` answers at once, and a job starts without what it does not need.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from streamproc import __version__
from streamproc.errors import Bug, InvalidJob, StreamprocError

if TYPE_CHECKING:
    from streamproc.job import Job
    from streamproc.options import Secret

FAILED, WRONG = 1, 2
REPORT = "this is a fault of streamproc; please report it with what `streamproc --debug` prints"


class Commands(click.Group):
    """The commands, with every error of theirs as one readable message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            _fail(error)


def _fail(error: Exception) -> NoReturn:
    if isinstance(error, StreamprocError) and not isinstance(error, Bug):
        click.echo(str(error) if isinstance(error, InvalidJob) else f"streamproc: {error}", err=True)
    else:
        click.echo(f"streamproc: {type(error).__name__}: {error}; {REPORT}", err=True)
    raise click.exceptions.Exit(WRONG if isinstance(error, InvalidJob) else FAILED)


class Instant(click.ParamType):
    """An ISO 8601 time, UTC without a zone, as microseconds since 1970 UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write for example 2026-01-01T00:00:00Z", param, ctx)
        return (at.replace(tzinfo=at.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class Seconds(click.ParamType):
    """A duration such as 30s, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from streamproc.options import duration_us

        try:
            return duration_us(value) / 1e6
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Address(click.ParamType):
    """HOST:PORT, as both."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            self.fail(f"{value!r} is no address; write for example 127.0.0.1:9108 or [::1]:9108", param, ctx)
        return host.removeprefix("[").removesuffix("]"), int(port)


class SecretReference(click.ParamType):
    """A secret by reference; what stands on a command line can be read by every user of the machine."""

    name = "secret"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Secret:
        from streamproc.job.variables import Variables
        from streamproc.options import Secret

        try:
            secret = Secret.of(Variables(os.environ).replace(value))
            if not secret.reveal():
                raise ValueError(f"{secret.reference} is empty")
        except (ValueError, OSError) as error:
            self.fail(str(error), param, ctx)
        return secret


change_keys = click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Change a key of the job file; may be repeated.")


def job_command(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command on one job file, which may be changed by --set."""
    return click.argument("job_file", metavar="JOB", type=click.Path())(change_keys(command))


def jobs_command(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command on job files or folders of them."""
    return click.argument("job_files", metavar="JOB...", nargs=-1, required=True, type=click.Path())(change_keys(command))


def _load(job_file: str, overrides: Sequence[str]) -> Job:
    from streamproc.job import load_job

    return load_job(job_file, overrides=overrides)


def _quiet_logs(job: Job | None = None) -> None:
    """Warnings and errors as text, for commands whose output is read by people."""
    from streamproc import logs
    from streamproc.clock import SystemClock

    logs.configure(SystemClock(), logs.secrets_in(job), terminal=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="streamproc", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Streams as unbounded tables, Spark SQL windows over them, every row once."""
    del debug  # read by Commands.invoke


@cli.command()
@job_command
@click.option("--available-now", is_flag=True, help="End when everything that is there at the start is committed.")
@click.option("--drain", is_flag=True, help="With --available-now: close every window too, and finish the checkpoint.")
def run(job_file: str, overrides: Sequence[str], available_now: bool, drain: bool) -> None:
    """Run a job.

    Until Ctrl-C or SIGTERM, which finish the epoch. A terminal shows a live picture, anything else gets JSON logs.
    """
    if drain and not available_now:
        raise click.UsageError("--drain closes all windows as if time had ended: use it together with --available-now")
    from streamproc.run import run_in_foreground

    job = _load(job_file, overrides)
    raise click.exceptions.Exit(asyncio.run(run_in_foreground(job, available_now=available_now, drain=drain)))


@cli.command()
@jobs_command
@click.option("--listen", metavar="HOST:PORT", type=Address(), default="127.0.0.1:9108", show_default=True, help="Metrics, health, jobs.")
@click.option("--admin-token", metavar="secret://…", type=SecretReference(), help="Who has it may restart jobs and reload files.")
@click.option("--drain-timeout", metavar="30s", type=Seconds(), default="30s", show_default=True, help="How long a stop may take.")
def worker(
    job_files: Sequence[str], overrides: Sequence[str], listen: tuple[str, int], admin_token: Secret | None, drain_timeout: float
) -> None:
    """Run jobs as a service.

    Every job of the files and folders, each started again when it fails. SIGTERM finishes the epochs and ends; SIGHUP reads the
    files again and restarts only what changed. JSON logs.
    """
    from streamproc.service.process import Settings, serve_jobs

    settings = Settings(tuple(job_files), tuple(overrides), *listen, admin_token, drain_timeout)
    raise click.exceptions.Exit(asyncio.run(serve_jobs(settings)))


@cli.command()
@jobs_command
@click.option("--connect", is_flag=True, help="Also try the servers and secrets that the job names.")
def check(job_files: Sequence[str], overrides: Sequence[str], connect: bool) -> None:
    """Find every fault of job files.

    Each is printed as file:line: what is wrong, and what to write instead. Exit code 2 if there is one.
    """
    from streamproc.check import examine

    checked = examine(job_files, overrides)
    faults = [fault for one in checked for fault in one.faults]
    if connect:
        from streamproc.connect import faults_of

        _quiet_logs()
        faults += [fault for one in checked if one.job for fault in asyncio.run(faults_of(one.job))]
    for line in (*faults, *(note for one in checked for note in one.notes)):
        click.echo(str(line))
    if faults:
        raise click.exceptions.Exit(WRONG)
    click.echo(f"{len(checked)} job file{'s' * (len(checked) != 1)}, no faults")


@cli.command()
@job_command
def explain(job_file: str, overrides: Sequence[str]) -> None:
    """Show the plan, the tasks and what each sink promises."""
    from streamproc.explain import explain_job

    job = _load(job_file, overrides)
    click.echo(explain_job(job))
    if Path(job.checkpoint).is_dir():
        click.echo(_held_back(job))


def _held_back(job: Job) -> str:
    """What the checkpoint says of the watermark."""
    from streamproc.engine import inspect

    try:
        standing = asyncio.run(inspect.status(job))
    except InvalidJob:
        return "\nwatermark: the job has not run yet"
    waits = ", ".join(standing.get("held_back_by") or ()) or "nothing: no shard is awaited"
    return f"\nwatermark {standing.get('watermark') or 'none yet'} after epoch {standing['epoch']}, held back by {waits}"


@cli.command()
@jobs_command
@click.option("--watch", is_flag=True, help="Run again whenever a file changes.")
@click.option("--junit", metavar="FILE", type=click.Path(dir_okay=False), help="Also write the results as JUnit XML.")
def test(job_files: Sequence[str], overrides: Sequence[str], watch: bool, junit: str | None) -> None:
    """Run the tests that job files hold. Exit code 1 if one fails."""
    from streamproc.job_tests import TestRun

    _quiet_logs()
    tests = TestRun(job_files, overrides, junit, click.echo)
    if watch:
        asyncio.run(tests.watch())
    raise click.exceptions.Exit(0 if tests.passed() else FAILED)


@cli.command()
@click.option(
    "--source", type=click.Choice(["kinesis", "kafka"]), default="kinesis", show_default=True, help="Which embedded server to read from."
)
@click.option("--seconds", type=click.IntRange(min=1), default=30, show_default=True, help="How long events are produced.")
@click.option("--kill", is_flag=True, help="Kill the worker in the middle and let it recover.")
def demo(source: str, seconds: int, kill: bool) -> None:
    """Show the whole thing on this machine.

    Embedded servers, no account, no configuration. At the end it compares what was written with a batch query over the
    same events; exit code 1 if a window is lost, twice or wrong.
    """
    try:
        from streamproc.demo import run_demo
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: run ./deploy/demo, or pip install 'streamproc[demo]'") from None
    _quiet_logs()
    raise click.exceptions.Exit(run_demo(source=source, seconds=seconds, kill=kill))


@cli.command()
@job_command
@click.option("--source", metavar="NAME", help="Which source, where the file is a job with several.")
def infer(job_file: str, overrides: Sequence[str], source: str | None) -> None:
    """Propose a schema and a watermark for a source.

    The file has the keys of one source, or is a job. Some thousand records are read; the snippet goes into the job file.
    """
    from streamproc.infer import propose

    _quiet_logs()
    click.echo(asyncio.run(propose(job_file, source, overrides)))


@cli.command()
@job_command
@click.option("--account", metavar="ID", default="*", help="Account of what the job names without one; default any.")
@click.option("--region", metavar="REGION", default="*", help="Region of what the job names without one; default any.")
def policy(job_file: str, overrides: Sequence[str], account: str, region: str) -> None:
    """Print the IAM policy that a job needs on AWS, and nothing more."""
    from streamproc.policy import Account, notes
    from streamproc.policy import policy as policy_of

    job = _load(job_file, overrides)
    document = policy_of(job, Account(account, region))
    click.echo(json.dumps(document, indent=2))
    for note in notes(job, document):
        click.echo(f"streamproc: {note}", err=True)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a job file."""
    from streamproc.job import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@cli.command()
@job_command
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(job_file: str, overrides: Sequence[str], as_json: bool) -> None:
    """Show where a job stands."""
    from streamproc.engine import inspect

    standing = asyncio.run(inspect.status(_load(job_file, overrides)))
    click.echo(json.dumps(standing, indent=2, default=str) if as_json else _lines(standing))


@cli.command()
@job_command
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def leases(job_file: str, overrides: Sequence[str], as_json: bool) -> None:
    """Show which worker holds which lease of a job."""
    job = _load(job_file, overrides)
    _quiet_logs(job)
    from streamproc import leases as table

    listing = asyncio.run(table.listing_of(job))
    for line in [json.dumps(table.as_json(listing), indent=2)] if as_json else table.lines(listing):
        click.echo(line)


@cli.command()
@job_command
def epochs(job_file: str, overrides: Sequence[str]) -> None:
    """List the epochs that the checkpoint keeps."""
    from streamproc.engine import inspect

    for line in asyncio.run(inspect.epochs(_load(job_file, overrides))):
        click.echo(line)


@cli.command()
@job_command
@click.option("--to", "to_us", metavar="TIME", type=Instant(), required=True, help="Such as 2026-01-01T00:00:00Z.")
@click.option("--yes", is_flag=True, help="Also where rows written since then stay in a sink and will come again.")
def rollback(job_file: str, overrides: Sequence[str], to_us: int, yes: bool) -> None:
    """Go back to the last commit before a time. The job must not be running."""
    from streamproc.engine.rollback import rollback as roll_back

    for line in asyncio.run(roll_back(_load(job_file, overrides), to_us, yes)):
        click.echo(line)


def _lines(value: Any, indent: str = "") -> str:
    """Nested mappings and lists as indented lines, names first."""
    if isinstance(value, dict) and value:
        return "\n".join(f"{indent}{key}:{_inner(item, indent)}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "\n".join(f"{indent}-{_inner(item, indent)}" for item in value)
    return f"{indent}{'none' if value is None or value in ([], {}) else value}"


def _inner(item: Any, indent: str) -> str:
    nested = isinstance(item, dict | list) and item
    return f"\n{_lines(item, indent + '  ')}" if nested else f" {_lines(item)}"


def main() -> NoReturn:
    """The console script."""
    sys.exit(cli.main(prog_name="streamproc"))
