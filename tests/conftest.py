"""What every test has: coroutine tests, real servers to run on, and how Hypothesis searches."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.async_plugin", "tests.process_plugin", "tests.servers_plugin"]
pytest_plugins += ["tests.stores_plugin"]

# The same examples on every run, or a failure says nothing about the change under test; no limit
# in time, as the machine may be busy. `--hypothesis-profile=long` looks for new ones.
settings.register_profile(
    "same",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "long", settings.get_profile("same"), derandomize=False, max_examples=2_000
)
settings.load_profile("same")
