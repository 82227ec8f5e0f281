"""Monitoring: probes and metrics of a worker process, or of a supervisor's, over HTTP."""
