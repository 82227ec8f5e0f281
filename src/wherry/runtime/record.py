"""Record: the mapping that asgiref keeps for an instance, as a face of what we keep."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, MutableMapping
from typing import Any

_KEYS = ("input_queue", "future", "scope", "last_used")


class Record(MutableMapping[str, Any]):
    """A mapping with the keys that asgiref's users know, and whatever user code adds.

    The values of those keys are attributes of the class that inherits from this one.
    """

    __slots__ = ("_extras",)

    def __init__(self) -> None:
        """Begin with nothing added."""
        self._extras: dict[str, Any] | None = None

    @abstractmethod
    def replace(self, key: str, value: Any) -> None:
        """Set one of the known values.

        Raises:
            TypeError: the queue and the task of an instance cannot be replaced.
        """

    def __getitem__(self, key: str) -> Any:
        """One of the four values that asgiref's users know, or one of their own."""
        if key in _KEYS:
            return getattr(self, key)
        if self._extras is None:
            raise KeyError(key)
        return self._extras[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value; see `replace`."""
        if key in _KEYS:
            self.replace(key, value)
        else:
            self._extras = self._extras or {}
            self._extras[key] = value

    def __delitem__(self, key: str) -> None:
        """Remove a value of user code's own."""
        if key in _KEYS:
            raise TypeError(f"{key} of an application instance cannot be removed")
        if self._extras is None:
            raise KeyError(key)
        del self._extras[key]

    def __iter__(self) -> Iterator[str]:
        """The keys."""
        return iter((*_KEYS, *(self._extras or ())))

    def __len__(self) -> int:
        """Number of keys."""
        return len(_KEYS) + len(self._extras or ())

    # Equal to itself alone.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType] - a mapping has none
