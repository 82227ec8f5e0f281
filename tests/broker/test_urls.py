"""What a store's URL may say, what is refused, and that no password of it is told."""

from __future__ import annotations

import ssl

import pytest

from wherry.broker.connect import open_store
from wherry.broker.urls import Address, Kind, parse_url
from wherry.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "places", "login"),
    [
        ("redis://h", [("h", 6379)], {"db": 0}),
        ("valkey://h:1/3", [("h", 1)], {"db": 3}),
        ("redis://", [("localhost", 6379)], {"db": 0}),
        ("redis:///2", [("localhost", 6379)], {"db": 2}),
        ("redis://:6380", [("localhost", 6380)], {"db": 0}),
        ("redis://[::1]:7/0", [("::1", 7)], {"db": 0}),
        ("redis://me@h", [("h", 6379)], {"db": 0, "username": "me"}),
        ("redis://me:a%2Fb%40c:d@h", [("h", 6379)],
         {"db": 0, "username": "me", "password": "a/b@c:d"}),
        ("redis://:p@h?db=4", [("h", 6379)], {"db": 4, "password": "p"}),
        ("redis://h/4?db=4&username=me&password=p%26q", [("h", 6379)],
         {"db": 4, "username": "me", "password": "p&q"}),
    ],
)  # fmt: skip
def test_one_server(url: str, places: list[tuple[str, int]], login: dict[str, object]):
    address = parse_url(url)
    assert (address.kind, address.tls) == (Kind.REDIS, None)
    assert (list(address.places), address.login) == (places, login)


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_scheme_with_an_s_means_tls(scheme: str):
    careless = parse_url(f"{scheme}://h?ssl_cert_reqs=none").tls
    assert careless is not None
    assert careless.keywords == {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    assert careless.context.verify_mode is ssl.CERT_NONE
    strict = parse_url(f"{scheme}://h?ssl_min_version=TLSv1.3").tls
    assert strict is not None
    assert strict.keywords["ssl_cert_reqs"] == "required"
    assert strict.context.verify_mode is ssl.CERT_REQUIRED
    assert strict.context.check_hostname
    assert strict.context.minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("url", "path", "login"),
    [
        ("unix:///run/redis.sock", "/run/redis.sock", {"db": 0}),
        ("unix://me:p@/run/a%20b.sock?db=2", "/run/a b.sock",
         {"db": 2, "username": "me", "password": "p"}),
        ("unix:///s?password=p", "/s", {"db": 0, "password": "p"}),
    ],
)  # fmt: skip
def test_socket(url: str, path: str, login: dict[str, object]):
    address = parse_url(url)
    assert (address.kind, address.path, address.login) == (Kind.UNIX, path, login)


def test_sentinels():
    address = parse_url(
        "redis+sentinel://me:p@a:1,b,[::1]:3/the%20service/5"
        "?sentinel_username=you&sentinel_password=q&socket_connect_timeout=0.5"
    )
    assert address.kind is Kind.SENTINEL
    assert address.places == (("a", 1), ("b", 26379), ("::1", 3))
    assert address.service == "the service"
    assert address.login == {"username": "me", "password": "p", "db": 5}
    assert address.sentinel_login == {"username": "you", "password": "q"}
    assert address.connect_timeout_s == 0.5
    assert (address.tls, address.sentinel_tls) == (None, None)


@pytest.mark.parametrize("scheme", ["rediss+sentinel", "valkeys+sentinel"])
def test_sentinels_have_tls_like_the_server_unless_told(scheme: str):
    both = parse_url(f"{scheme}://a/s")
    assert both.tls
    assert both.sentinel_tls == both.tls
    server_alone = parse_url(f"{scheme}://a/s?sentinel_ssl=no")
    assert server_alone.tls
    assert server_alone.sentinel_tls is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redsi://h", "did you mean redis://?"),
        ("redis+sentinal://h/s", "did you mean redis+sentinel://?"),
        ("http://h", "use one of redis://, rediss://"),
        ("localhost:6379", "use one of redis://"),
        ("redis://h:port", "port 'port' is no number"),
        ("redis://h:0", "port '0' is no number"),
        ("redis://h:70000", "port '70000' is no number"),
        ("redis://h:1:2", "'h:1:2' is not HOST:PORT"),
        ("redis://::1/0", "written in brackets"),
        ("redis://a:1,b:2", "sentinels have redis+sentinel://"),
        ("redis://a:1,b:2", "a cluster has redis+cluster://"),
        ("redis+cluster://h/1", "a cluster has none but 0"),
        ("redis+cluster://h?db=2", "a cluster has none but 0"),
        ("redis+cluster://a,,b", "a host is missing"),
        ("redis+cluster://", "a host is missing"),
        ("redis+clutser://h", "did you mean redis+cluster://?"),
        ("redis+cluster://h?ssl_ca_certs=/f", "that is the scheme with an s, rediss"),
        ("redis://h/first", "database 'first' is no number"),
        ("redis://h/-1", "database '-1' is no number"),
        ("redis://h/1?db=2", "two databases, 1 and 2"),
        ("redis://h?dbb=2", "no option 'dbb'; did you mean db?"),
        ("redis://h?protocol=3", "no option 'protocol'"),
        ("redis://h?db=1&db=1", "db is given twice"),
        ("redis://me@h?username=you", "two of username"),
        ("redis://h?socket_connect_timeout=soon", "must be seconds above 0"),
        ("redis://h?socket_connect_timeout=-1", "must be seconds above 0"),
        ("redis://h?ssl_ca_certs=/f", "that is the scheme with an s, rediss"),
        ("rediss://h?ssl_ca_cert=/f", "did you mean ssl_ca_certs?"),
        ("redis://h?sentinel_password=p", "no option 'sentinel_password'"),
        ("redis+sentinel://h:1", "it does not name the service"),
        ("redis+sentinel:///s", "a host is missing"),
        ("redis+sentinel://a,,b/s", "a host is missing"),
        ("redis+sentinel://a/s/x", "database 'x' is no number"),
        ("redis+sentinel://a/s?sentinel_ssl=0", "that is the scheme with an s"),
        ("unix://run/redis.sock", "whole path follows: unix:///run"),
        ("unix://", "whole path follows"),
        ("redis://:se/cret@h", "quote special letters"),
        ("redis://:se?cret@h", "quote special letters"),
        ("redis://:se#cret@h", "quote special letters"),
        ("redis://:se@cret@h", "quote special letters"),
        ("redis+sentinel://a/s?sentinel_password=se@cret", "quote special letters"),
        ("rediss://h?ssl_cert_reqs=never", "must be one of none, optional, required"),
        ("rediss://h?ssl_check_hostname=perhaps", "write 1 or 0"),
        ("rediss://h?ssl_min_version=1.3", "write TLSv1.2 or TLSv1.3"),
        ("rediss://h?ssl_ciphers=none-such", "ciphers that OpenSSL knows"),
        ("rediss://h?ssl_keyfile=/dev/null", "give that, too: ssl_certfile"),
    ],
)
def test_mistake_is_named(url: str, told: str):
    with pytest.raises(ConfigError) as raised:
        open_store(url)
    assert told in str(raised.value)
    assert "cret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:secret@h",
        "redis://h?username=me&password=secret",
        "unix://:secret@/s",
        "redis+sentinel://:secret@a/s?sentinel_password=secret",
    ],
)
def test_passwords_are_not_shown(url: str):
    address = parse_url(url)
    assert "secret" in str([address.login, address.sentinel_login])
    for text in (address.shown, repr(address), open_store(url).where):
        assert "secret" not in text
        assert "***" in text


def test_parts_that_a_store_has_no_use_for_are_empty():
    assert parse_url("memory://name") == Address(
        kind=Kind.MEMORY, shown="memory://name", path="name"
    )
