"""Decisions: plain objects without loop, clock, socket or Redis."""
