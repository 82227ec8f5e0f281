"""Bursts: whether more comes right behind the few entries that have ended a wait.

Redis wakes a reader with the first entry there is, although whoever wrote it may have written
many in one go. To handle that one by itself costs a commit of its own. Where the last few were
followed at once by many, it pays to look once more before any is handled; where they were not,
it would only delay them.
"""

from __future__ import annotations

FEW = 4
"""Fewer than these may be the first of a burst."""
AT_ONCE_S = 0.005


class Bursts:
    """Learns from one read to the next of a worker."""

    __slots__ = ("_are_expected", "_few_at_s")

    def __init__(self) -> None:
        """Expect none."""
        self._are_expected = False
        self._few_at_s: float | None = None  # when the last read brought a few

    def may_follow(self, brought: int, now_s: float) -> bool:
        """Whether to look once more before what a read that could wait has brought is handled."""
        followed_at_s, self._few_at_s = self._few_at_s, None
        if followed_at_s is not None:
            self._are_expected = brought >= FEW and now_s - followed_at_s < AT_ONCE_S
        if not 0 < brought < FEW:
            return False
        if not self._are_expected:
            self._few_at_s = now_s
        return self._are_expected

    def looked(self, brought: int, then_brought: int) -> None:
        """So many the second look has brought, those of the first among them."""
        self._are_expected = then_brought > brought
