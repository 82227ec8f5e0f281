"""Fault runs: a fleet of real processes is killed, stalled and redeployed, and all is counted."""
