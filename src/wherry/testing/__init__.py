"""Testing: run an application on the real engine, in memory and with a clock that tests move."""

from .failures import Failure
from .harness import Harness
from .look import DeadLetter

__all__ = ["DeadLetter", "Failure", "Harness"]
