"""Tests of ``wherry.broker``, on real servers."""
