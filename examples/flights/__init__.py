"""A month of flights: state for each aircraft, answered flight by flight."""
