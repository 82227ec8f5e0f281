"""``wherry`` on the command line: options become settings, and one function does the work.

What a command needs is imported when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..supervisor.parent import Parent
from . import configuration, dlq, doctor, fleet, probes, purge, scopes
from . import options as o
from .exits import let_go_of_logs, reported
from .opening import opened, read
from .settings import Value

if TYPE_CHECKING:
    from ..client.envelope import RequestOptions

# Options whose settings have another name.
_RENAMED = {"application": "app", "lease": "lease_s", "drain_timeout": "drain_timeout_s"}

app = typer.Typer(
    name="wherry",
    help="ASGI applications as a fleet of stateless workers on Redis Streams.",
    epilog="Settings: flag > WHERRY_* variable > [tool.wherry] in pyproject.toml > default.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: quick to start, and the same in a log as on a terminal
)


def main() -> None:
    """Run the command line; ends the process with the command's exit code."""
    try:
        app(prog_name="wherry")
    finally:
        let_go_of_logs()


def _say_version(wanted: bool) -> None:
    if wanted:
        from .version import installed_version

        print(f"wherry {installed_version()}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """ASGI applications as a fleet of stateless workers on Redis Streams."""


@app.command()
def run(
    application: o.App = None,
    *,
    url: o.Url = None,
    namespace: o.Namespace = None,
    partitions: o.Partitions = None,
    channel: o.Channel = None,
    max_applications: o.MaxApplications = None,
    concurrency: o.Concurrency = None,
    durable_state: o.DurableState = None,
    lifespan: o.Lifespan = None,
    lease: o.Lease = None,
    drain_timeout: o.DrainTimeout = None,
    max_attempts: o.MaxAttempts = None,
    on_dead_letter: o.OnDeadLetter = None,
    workers: o.Workers = None,
    max_messages: o.MaxMessages = None,
    max_memory: o.MaxMemory = None,
    reload: o.Reload = None,
    log_level: o.LogLevel = None,
    loop: o.Loop = None,
    http_host: o.HttpHost = None,
    http_port: o.HttpPort = None,
    factory: o.Factory = None,
    app_dir: o.AppDir = None,
    set_: o.Set = None,
) -> None:
    """Run a worker, or several, until stopped.

    SIGTERM or Ctrl-C drains: no new messages, running ones finish. A second one hands back at once.
    SIGHUP replaces all workers of a supervisor, one by one. SIGUSR1 prints tasks and instances.
    """
    given: dict[str, Value | None] = {_RENAMED.get(k, k): v for k, v in locals().items()}
    with reported(worker=True):
        parent = Parent.take(os.environ)
        given.pop("set_")
        settings = read(given, set_)
        on_terminal = sys.stderr.isatty()
        if parent is None and (settings.workers > 1 or settings.reload):
            from .supervise import supervise

            raise typer.Exit(supervise(settings, on_terminal=on_terminal))
        from .serve import serve

        raise typer.Exit(serve(settings, on_terminal=on_terminal, parent=parent))


@app.command()
def send(
    scope: o.ScopeId,
    message: o.Json,
    *,
    channel: o.SendChannel = None,
    message_id: o.MessageId = None,
    expires: o.Expires = None,
    url: o.Url = None,
    namespace: o.Namespace = None,
    partitions: o.Partitions = None,
    set_: o.Set = None,
) -> None:
    """Send a message and print its entry id."""
    with reported():
        from . import messages

        event = messages.read_message(message)
        extra: RequestOptions = {"channel": channel, "message_id": message_id, "expires_s": expires}
        settings = read({"url": url, "namespace": namespace, "partitions": partitions}, set_)
        with opened(settings) as store:
            client = messages.make_client(store, settings.config)
            asyncio.run(messages.send(client, scope, event, extra))


@app.command()
def request(
    scope: o.ScopeId,
    message: o.Json,
    *,
    stream: o.Stream = False,
    timeout: o.Timeout = 30.0,
    channel: o.SendChannel = None,
    message_id: o.MessageId = None,
    expires: o.Expires = None,
    url: o.Url = None,
    namespace: o.Namespace = None,
    partitions: o.Partitions = None,
    set_: o.Set = None,
) -> None:
    """Send a message and print the answer as JSON lines."""
    with reported():
        from . import messages

        event = messages.read_message(message)
        extra: RequestOptions = {
            "channel": channel,
            "message_id": message_id,
            "expires_s": expires,
        }
        settings = read({"url": url, "namespace": namespace, "partitions": partitions}, set_)
        with opened(settings) as store:
            client = messages.make_client(store, settings.config)
            asyncio.run(
                messages.request(client, scope, event, extra, timeout_s=timeout, stream=stream)
            )


@app.command()
def replies(
    scope: o.ScopeId,
    *,
    follow: o.Follow = False,
    after: o.After = None,
    url: o.Url = None,
    namespace: o.Namespace = None,
    partitions: o.Partitions = None,
    set_: o.Set = None,
) -> None:
    """Print what a scope has answered as JSON lines."""
    with reported():
        from . import messages

        start = None if after is None else messages.check_entry_id(after)
        settings = read({"url": url, "namespace": namespace, "partitions": partitions}, set_)
        with opened(settings) as store:
            client = messages.make_client(store, settings.config)
            asyncio.run(messages.replies(client, scope, after=start, follow=follow))


app.add_typer(fleet.commands)
app.add_typer(scopes.commands, name="scopes")
app.add_typer(dlq.commands, name="dlq")
app.add_typer(configuration.commands, name="config")
app.command("doctor")(doctor.doctor)
app.command("health")(probes.health)
app.command("purge")(purge.purge)
