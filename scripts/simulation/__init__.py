"""Deterministic simulation: a fleet of workers in one process, in an order that a seed decides."""
