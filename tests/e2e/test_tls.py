"""TLS with an authority and client certificates of one's own, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from scripts.ports import free_port
from tests.clusters import Clustered
from tests.e2e.rig import QUICK, rig, working
from tests.e2e.test_durable import DURABLE, totals
from tests.proxy import proxy
from tests.servers import Server, available_servers
from tests.servers_plugin import StartServer
from tests.tls import Certificates, is_built_with_tls, tls_before
from wherry import Client, Config
from wherry.broker.connect import open_store
from wherry.broker.plain import PlainConnection
from wherry.broker.urls import Address, parse_url
from wherry.errors import ConfigError, StoreRefused, StoreUnavailable, WherryError


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def works(url: str) -> None:
    """A worker, a client, and the renewing thread's kind of link."""
    async with (
        rig(url) as seen,
        working(totals, url, **DURABLE),
        Client(url, config=Config(**QUICK)) as client,
    ):
        await client.send("s", {"type": "n", "number": 2})
        await seen.answered("s", 1)
    assert await _ask_blocking(url) == b"PONG"


# Python's ssl leaves it to the garbage collector to close a socket that was reset before its
# handshake began, as one to a node that has just been killed may be.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.limit_s(90)
@pytest.mark.parametrize(
    "kind", [kind for kind, binary in available_servers().items() if is_built_with_tls(binary)]
)
async def test_nodes_of_a_cluster_are_spoken_to_over_tls(
    kind: str, certificates: Certificates, tmp_path: Path
):
    with Clustered(available_servers()[kind], tmp_path, certificates=certificates) as cluster:
        await works(cluster.url)
        async with (
            rig(cluster.url) as seen,
            working(totals, cluster.url, **DURABLE),
            Client(cluster.url, config=Config(**QUICK)) as client,
        ):
            primary = await asyncio.to_thread(
                cluster.owner, seen.keys.replies(seen.partition("t"), "t")
            )
            await client.send("t", {"type": "n", "number": 1})
            await seen.answered("t", 1)
            await asyncio.to_thread(cluster.fail_over, primary)
            await client.send("t", {"type": "n", "number": 2})
            await seen.answered("t", 2)
            assert await seen.numbers("t") == [1, 3]


async def _ask_blocking(url: str) -> object:
    """In a thread: what answers is in this loop."""
    blocking = open_store(url).sync_link()
    try:
        return await asyncio.to_thread(blocking.call, "PING")
    finally:
        blocking.close()


async def refusal(url: str) -> WherryError:
    """What all kinds of link say."""
    said: list[StoreRefused] = []
    store = open_store(url)
    for link in (store.link(), store.single_link()):
        with pytest.raises(StoreRefused) as raised:
            await link.call("PING")
        await link.aclose()
        said.append(raised.value)
    with pytest.raises(StoreRefused) as raised:
        await _ask_blocking(url)
    assert {str(one) for one in said} == {str(raised.value)}
    return raised.value


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
async def test_worker_and_client_over_tls(
    redis_server: Server, certificates: Certificates, scheme: str
):
    async with tls_before(redis_server.port, certificates.context()) as port:
        await works(f"{scheme}://127.0.0.1:{port}/0{certificates.options()}")


async def test_health_probe_over_tls(redis_server: Server, certificates: Certificates):
    """It has connections of its own kind: they are made from the same options."""
    async with tls_before(redis_server.port, certificates.context()) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        address = parse_url(url + certificates.options())
        assert await asyncio.to_thread(_ping, address) == [b"PONG"]
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            await asyncio.to_thread(_ping, parse_url(url))


def _ping(address: Address) -> list[object]:
    with PlainConnection(address, within_s=10) as plain:
        return plain.calls([("PING",)])


async def test_relative_paths_are_those_of_the_working_directory(
    redis_server: Server,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.chdir(certificates.directory)
    async with tls_before(redis_server.port, certificates.context()) as port:
        options = "?ssl_ca_certs=ca.pem&ssl_certfile=client.pem&ssl_keyfile=./client.key"
        store = open_store(f"rediss://127.0.0.1:{port}{options}")
        monkeypatch.chdir(tmp_path)
        link = store.link()
        assert await link.call("PING") == b"PONG"
        await link.aclose()


async def test_server_that_speaks_tls_itself(start_server: StartServer, certificates: Certificates):
    name = next((one for one, path in available_servers().items() if is_built_with_tls(path)), None)
    if name is None:
        pytest.skip("no server here is built with TLS")
    port = free_port()
    start_server(name, args=certificates.server_args(port))
    await works(f"rediss://127.0.0.1:{port}/0{certificates.options()}")


async def test_answers_larger_than_a_record_of_tls_arrive_whole(
    redis_server: Server, certificates: Certificates
):
    """On the link of a worker's reads: pieces that are decrypted in one go share its buffer."""
    values = [bytes([number]) * 2**17 for number in range(1, 9)]
    async with tls_before(redis_server.port, certificates.context()) as port:
        link = open_store(f"rediss://127.0.0.1:{port}{certificates.options()}").single_link()
        await link.calls([("SET", f"k{n}", value) for n, value in enumerate(values)])
        found = await link.calls([("GET", f"k{n}") for n in range(len(values))])
        assert found == values
        await link.aclose()


async def test_send_that_fails_in_silence_is_not_held_up_by_what_is_closed(
    redis_server: Server, certificates: Certificates
):
    """To close an encrypted connection the other side is waited for, which is silent, too."""
    config = Config(socket_timeout_s=0.4, block_s=0.2)
    async with tls_before(redis_server.port, certificates.context()) as port, proxy(port) as way:
        options = certificates.options(socket_connect_timeout=60)
        async with Client(way.url.replace("redis", "rediss", 1) + options, config=config) as client:
            await client.send("s", {"type": "n"})
            way.swallows_requests = way.swallows_answers = {*way._wires}.__contains__
            async with asyncio.timeout(20):
                with pytest.raises(StoreUnavailable, match="may or may not"):
                    await client.send("s", {"type": "n"})
                await client.send("s", {"type": "n"})


async def test_sentinel_and_server_over_tls(start_server: StartServer, certificates: Certificates):
    """A sentinel names the place of the server as it sees it: here that of the proxy."""
    server = start_server()
    context = certificates.context()
    async with tls_before(server.port, context) as port:
        for sentinel_context, more in ((context, {}), (None, {"sentinel_ssl": "no"})):
            async with _naming(port, sentinel_context) as place:
                options = certificates.options(**more)
                await works(f"rediss+sentinel://127.0.0.1:{place}/main{options}")


async def test_certificate_that_is_not_trusted(redis_server: Server, certificates: Certificates):
    async with tls_before(redis_server.port, certificates.context()) as port:
        place = f"rediss://127.0.0.1:{port}/0"
        for options in ("", certificates.options(ssl_ca_certs=certificates.other_ca)):
            cause = str(await refusal(place + options))
            assert "certificate that is not trusted" in cause
            assert "?ssl_ca_certs=FILE" in cause


async def test_certificate_of_another_host(redis_server: Server, certificates: Certificates):
    context = certificates.context(certificates.elsewhere)
    async with tls_before(redis_server.port, context) as port:
        place = f"rediss://127.0.0.1:{port}/0"
        cause = await refusal(place + certificates.options())
        assert "127.0.0.1" in str(cause)
        link = open_store(place + certificates.options(ssl_check_hostname="no")).link()
        assert await link.call("PING") == b"PONG"
        await link.aclose()


async def test_server_that_speaks_no_tls():
    """One that takes what it gets for a command; others wait for its end."""

    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
            writer.write(b"-ERR unknown command\r\n")
            await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        cause = await refusal(f"rediss://127.0.0.1:{port}/0")
        await asyncio.wait(serving)
    assert "does not speak TLS; use the scheme without the s" in str(cause)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ssl_ca_certs": "none.pem"}, "ssl_ca_certs: {}/none.pem cannot be read: No such file"),
        ({"ssl_ca_certs": "client.key"}, "does not hold certificates in PEM format"),
        ({"ssl_ca_path": "none"}, "ssl_ca_path: {}/none cannot be read: no such directory"),
        ({"ssl_certfile": "."}, "ssl_certfile: {} cannot be read: Is a directory"),
        ({"ssl_certfile": "client.pem", "ssl_keyfile": "server.key"}, "the key that belongs to it"),
        ({"ssl_certfile": "client.pem", "ssl_keyfile": "locked.key"}, "is ssl_password right?"),
    ],
)
def test_file_that_cannot_be_used(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], told: str
):
    monkeypatch.chdir(certificates.directory)
    _lock(certificates)
    query = "&".join(f"{name}={value}" for name, value in options.items())
    with pytest.raises(ConfigError) as raised:
        open_store(f"rediss://h?{query}")
    assert told.format(certificates.directory) in str(raised.value)


async def test_key_with_a_password(redis_server: Server, certificates: Certificates):
    key = _lock(certificates)
    options = certificates.options(ssl_keyfile=key, ssl_password="locked")
    async with tls_before(redis_server.port, certificates.context()) as port:
        url = f"rediss://127.0.0.1:{port}{options}"
        assert "=locked" not in open_store(url).where
        await works(url)


def _lock(certificates: Certificates) -> Path:
    from cryptography.hazmat.primitives import serialization

    _, path = certificates.client
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"locked"),
    )
    place = certificates.directory / "locked.key"
    place.write_bytes(locked)
    return place


@asynccontextmanager
async def _naming(port: int, context: ssl.SSLContext | None) -> AsyncGenerator[int]:
    """Stands in for a sentinel that names a port of this machine; yields its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            text = str(port)
            writer.write(f"*2\r\n$9\r\n127.0.0.1\r\n${len(text)}\r\n{text}\r\n".encode())
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listener:
        yield listener.sockets[0].getsockname()[1]
