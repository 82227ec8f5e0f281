"""The parts that run in the event loop."""
