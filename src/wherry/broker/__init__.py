"""Redis behind small typed functions."""
