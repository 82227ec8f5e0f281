"""The options and arguments of all commands, each declared once."""

from __future__ import annotations

from typing import Annotated

import typer

_option = typer.Option
_argument = typer.Argument

App = Annotated[
    str | None,
    _argument(metavar="[MODULE:ATTRIBUTE]", help="The application, as uvicorn takes it.",
              show_default=False),
]  # fmt: skip
ScopeId = Annotated[str, _argument(metavar="SCOPE", help="Whom the message is for.")]
Json = Annotated[
    str,
    _argument(metavar="JSON", help="The message, an object with a type; - reads standard input."),
]

Url = Annotated[
    str | None,
    _option(help="redis://..., rediss://..., unix://..., embedded:// or memory://.",
            show_default=False),
]  # fmt: skip
Namespace = Annotated[str | None, _option(help="Keeps applications on one Redis apart.")]
Partitions = Annotated[
    int | None, _option(help="Of the namespace, fixed for its life; 64 if it is new.")
]
Set = Annotated[
    list[str] | None,
    _option("--set", metavar="NAME=VALUE", help="Any other setting; may be repeated."),
]
LogLevel = Annotated[str | None, _option(help="debug, info, warning or error.")]

Channel = Annotated[str | None, _option(help="Route that a channel scope carries.")]
MaxApplications = Annotated[int | None, _option(help="Instances kept in memory.")]
Concurrency = Annotated[int | None, _option(help="Instances that handle a message at a time.")]
DurableState = Annotated[
    bool | None, _option("--durable-state/--no-durable-state", help="Keep scope['durable'].")
]
Lifespan = Annotated[str | None, _option(help="auto, on or off.")]
Lease = Annotated[float | None, _option(help="Seconds a dead worker's partitions stay shut.")]
DrainTimeout = Annotated[float | None, _option(help="Seconds for running messages at the end.")]
MaxAttempts = Annotated[int | None, _option(help="Then a message becomes a dead letter.")]
OnDeadLetter = Annotated[
    str | None, _option(help="After the last attempt: bury the message, or hold its scope.")
]
HttpHost = Annotated[
    str | None, _option("--http-host", help="Where probes and metrics listen; 127.0.0.1.")
]
HttpPort = Annotated[
    int | None,
    _option("--http-port", help="Serve /livez, /readyz and /metrics there; 0: any free port."),
]
Loop = Annotated[str | None, _option(help="auto, asyncio or uvloop.")]
Workers = Annotated[int | None, _option(help="Processes; with more than one, supervised.")]
Reload = Annotated[
    bool | None, _option("--reload/--no-reload", help="Replace workers when the code changes.")
]
MaxMessages = Annotated[
    int | None, _option(help="About so many messages, then the process is replaced; 0 never.")
]
MaxMemory = Annotated[
    str | None, _option(metavar="SIZE", help="The process is replaced beyond, such as 512M.")
]
Factory = Annotated[
    bool | None, _option("--factory/--no-factory", help="Call ATTRIBUTE to get the application.")
]
AppDir = Annotated[str | None, _option(help="Where MODULE is looked for first.")]

SendChannel = Annotated[str | None, _option("--channel", help="Route of the message's scope.")]
MessageId = Annotated[
    str | None, _option(help="Sent again with the same id, the message is not taken twice.")
]
Expires = Annotated[
    float | None, _option(help="Seconds after which it is no longer handled.", min=0.001)
]
Timeout = Annotated[
    float, _option(help="Seconds for the whole answer; with --stream between replies.", min=0.001)
]
Stream = Annotated[bool, _option("--stream", help="Print replies as the application sends them.")]
Follow = Annotated[bool, _option("--follow", help="Wait for more; Ctrl-C ends it.")]
After = Annotated[
    str | None, _option(metavar="ID", help="Go on behind this reply; oldest kept if unset.")
]
AsJson = Annotated[bool, _option("--json", help="One JSON object, with all there is.")]
Watch = Annotated[bool, _option("--watch", help="Look again and again; Ctrl-C ends it.")]
Every = Annotated[
    float, _option(metavar="SECONDS", help="Between two looks with --watch.", min=0.1)
]
EveryLook = Annotated[
    float, _option("--every", metavar="SECONDS", help="Between two looks.", min=0.1)
]
Once = Annotated[bool, _option("--once", help="Print one picture; needs no terminal.")]
WorkerId = Annotated[
    str, _argument(metavar="WORKER", help="Its id, or a part that no other worker has.")
]
Wait = Annotated[
    float,
    _option(metavar="SECONDS", help="For the worker to leave the fleet; 0 does not wait.", min=0.0),
]
UntilIdle = Annotated[
    bool, _option("--until-idle", help="Wait until nothing is being handled any more, too.")
]
WorkersTimeout = Annotated[
    float, _option(metavar="SECONDS", help="For all workers to say that they know.", min=0.001)
]
OneScope = Annotated[str, _argument(metavar="SCOPE", help="Which.")]
By = Annotated[str, _option(metavar="ORDER", help="age, waiting or attempts: which come first.")]
Count = Annotated[int, _option(help="So many at most, and of each worker.", min=1, max=200)]
AnswerTimeout = Annotated[
    float, _option(metavar="SECONDS", help="For workers to answer.", min=0.001)
]
