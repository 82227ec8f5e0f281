"""What every test has: coroutine tests, and real servers to run on."""

pytest_plugins = ["tests.async_plugin", "tests.servers_plugin"]
