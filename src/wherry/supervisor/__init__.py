"""Supervisor: worker processes kept alive by one, and what each side sees of the other."""
