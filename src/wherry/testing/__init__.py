"""Testing: run an application on the real engine, in memory and with a clock that tests move."""

from ..model import DeadLetter
from .failures import Failure
from .harness import Harness

__all__ = ["DeadLetter", "Failure", "Harness"]
