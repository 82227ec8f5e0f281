"""Probes and metrics, as those who ask see them."""
