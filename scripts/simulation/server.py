"""Server: fakeredis on virtual time, whose data can be put back to what they were.

Only what costs time without showing anything is left out of fakeredis: scripts are compiled once,
and commands are handed over without being packed and parsed.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable
from typing import Any

import fakeredis.model._stream as stream_module
from fakeredis import _msgs
from fakeredis._commands import Key, Signature
from fakeredis._core._database import CommandItem, Item
from fakeredis._helpers import NoResponse, SimpleError
from fakeredis._socket._async import AsyncFakeSocket
from fakeredis._socket._fakesocket import FakeSocket
from fakeredis._socket._resp import convert_to_resp2
from fakeredis.commands_mixins import scripting_mixin as scripting

from wherry.broker.memory import CLOCK_KEY, MemoryServer

STARTED_MS = 1_700_000_000_000
Fields = list[bytes]

_compiled: dict[bytes, Any] = {}
_types: dict[tuple[str, int], tuple[list[tuple[int, Any]], list[tuple[int, Key]]]] = {}
_lua: dict[str, Any] = {}


class _Clock(Item):
    """The value of the key in which scripts of a store in memory find the time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.expireat = None

    @property
    def value(self) -> bytes:
        return b"%d" % self._server.now_ms()

    @value.setter
    def value(self, value: Any) -> None:
        """It cannot be changed."""


class Server(MemoryServer):
    """One Redis.

    Attributes:
        run_id: another one after each restart.
    """

    def __init__(self, loop_time: Callable[[], float]) -> None:
        super().__init__()
        self._loop_time = loop_time
        self._offset_ms = STARTED_MS
        self.run_id = 1
        self.unix_s = lambda: self.now_ms() / 1000
        stream_module.time = self  # type: ignore[assignment] - entry ids
        for name, value in _lua.items():
            setattr(self, name, value)
        self._set_clock()
        self.desk = _Desk(self)

    def close(self) -> None:
        """Let other stores in memory name their entries by the computer's time again."""
        stream_module.time = time  # pyright: ignore[reportPrivateImportUsage] - as above

    def time(self) -> float:
        """Seconds since 1970, where fakeredis asks the computer."""
        return self.now_ms() / 1000

    def now_ms(self) -> int:
        """Redis' time."""
        return self._offset_ms + round(self._loop_time() * 1000)

    def jump(self, ms: int) -> None:
        """Set the clock forward."""
        self._offset_ms += ms

    def _set_clock(self) -> None:
        self.dbs[0][CLOCK_KEY.encode()] = _Clock(self)

    def snapshot(self) -> dict[bytes, Any]:
        """All data as they are now."""
        data = self.dbs[0]._dict
        clock = data.pop(CLOCK_KEY.encode())
        try:
            return copy.deepcopy(data)
        finally:
            data[CLOCK_KEY.encode()] = clock

    def restore(self, data: dict[bytes, Any]) -> None:
        """Go back to a snapshot, as a replica that lacked the last writes; scripts are gone."""
        with self.lock:
            database = self.dbs[0]
            database.clear()
            for key, item in data.items():
                database[key] = item
        self._set_clock()
        self.script_cache.clear()
        self.run_id += 1

    def flush(self) -> None:
        """Lose all data, as FLUSHALL does."""
        with self.lock:
            self.dbs[0].clear()
        self._set_clock()
        self.jump(1)  # an id of this millisecond may come again, and two messages look like one

    def call(self, *arguments: str | bytes | int) -> Any:
        """Run a command past all workers and the network."""
        return self.desk.call(encode(arguments))


def encode(arguments: Any) -> Fields:
    """The arguments of a command as they are on the wire."""
    return [
        one
        if type(one) is bytes
        else one.encode()
        if type(one) is str
        else str(one).encode()
        if not isinstance(one, bytes)
        else bytes(one)
        for one in arguments
    ]


def _types_of(
    signature: Signature, arguments: list[Any], version: Any
) -> tuple[list[tuple[int, Any]], list[tuple[int, Key]]]:
    """Where a command has arguments that are no plain bytes, and where keys."""
    found = _types.get((signature.name, len(arguments)))
    if found is None:
        signature.check_arity(arguments, version)
        types: list[Any] = list(signature.fixed)
        while len(types) < len(arguments):
            types += signature.repeat
        del types[len(arguments) :]
        others = [
            (place, kind)
            for place, kind in enumerate(types)
            if kind is not bytes and not isinstance(kind, Key)
        ]
        keys = [(place, kind) for place, kind in enumerate(types) if isinstance(kind, Key)]
        found = _types[(signature.name, len(arguments))] = others, keys
    return found


class _Quick:
    """What both kinds of connections do faster than fakeredis."""

    def _process_command(self: Any, fields: Fields) -> None:
        name = fields[0].decode().lower()
        rest = fields[1:]
        if name in ("client", "script"):
            name += " " + rest.pop(0).decode().lower()
        with self._server.lock:
            try:
                function, signature = self._name_to_func(name)
                result = self._run_command(function, signature, rest, False)
            except SimpleError as error:
                result = error
        result = self._decode_result(result)
        if not isinstance(result, NoResponse):
            self.put_response(result)

    def _run_command(
        self: Any, func: Any, sig: Signature, args: list[Any], from_script: bool
    ) -> Any:
        """As fakeredis does, without notifications of keyspace events, which nobody reads."""
        items: list[CommandItem] = []
        flags = sig.flags
        try:
            others, keys = _types_of(sig, args, self.version)
            args = list(args)
            database = self._db
            for place, key in keys:
                if key.missing_return is not Key.UNSPECIFIED and args[place] not in database:
                    return key.missing_return
            for place, kind in others:
                args[place] = kind.decode(args[place])
            for place, key in keys:
                name, default = args[place], None
                item = database.get(name)
                if item is None:
                    if (
                        key.type_ is not None
                        and key.type_ is not bytes
                        and _msgs.FLAG_DO_NOT_CREATE not in flags
                    ):
                        default = key.type_()
                elif key.type_ is not None and type(item.value) is not key.type_:
                    raise SimpleError(_msgs.WRONGTYPE_MSG)
                args[place] = CommandItem(name, database, item, default=default)
                items.append(args[place])
            result = func(*args)
            if _msgs.FLAG_SKIP_CONVERT_TO_RESP2 not in flags:
                result = convert_to_resp2(result, self.server_type)
        except SimpleError as error:
            result = error
        for item in items:
            item.writeback(remove_empty_val=_msgs.FLAG_LEAVE_EMPTY_VAL not in flags)
        return result

    def eval(self: Any, script: bytes, numkeys: int, *arguments: bytes) -> Any:
        server = self._server
        server.script_cache[hashlib.sha1(script).hexdigest().encode()] = script
        lua = self._get_server_runtime(server)
        if not _lua:
            _lua.update({k: v for k, v in vars(server).items() if k.startswith("_lua_")})
        function = _compiled.get(script)
        if function is None:
            function = _compiled[script] = lua.compile(script)
        server._lua_current_socket[0] = self
        self._script_resp = 2
        server._lua_set_keys_argv(
            lua.table_from(arguments[:numkeys]), lua.table_from(arguments[numkeys:])
        )
        try:
            result = function()
        except scripting.LUA_MODULE.LuaError as error:
            raise SimpleError(f"ERR {error}") from None
        finally:
            self._script_resp = None
        return self._convert_lua_result(result, nested=False)

    def _lua_redis_call(
        self: Any, lua_runtime: Any, expected_globals: Any, op: bytes, *args: Any
    ) -> Any:
        function, signature = self._name_to_func(op.decode().lower())
        converted = [scripting._convert_redis_arg(one) for one in args]
        result = self._run_command(function, signature, converted, True)
        return self._convert_redis_result(lua_runtime, result)


class Socket(_Quick, AsyncFakeSocket):
    """The server's end of a connection.

    Attributes:
        last: its last answer.
    """

    last: Any = None

    def put_response(self, msg: Any) -> None:
        """Answer."""
        self.last = msg
        super().put_response(msg)


class _Desk(_Quick, FakeSocket):
    """A connection of the story's own."""

    def __init__(self, server: Server) -> None:
        import redis

        super().__init__(server, 0, client_class=redis.Redis, lua_modules=None, client_info=None)
        self._answers: list[Any] = []

    def put_response(self, msg: Any) -> None:
        self._answers.append(msg)

    def call(self, fields: Fields) -> Any:
        self._process_command(fields)
        answer = self._answers.pop()
        self._answers.clear()
        if isinstance(answer, Exception):
            raise answer
        return answer
