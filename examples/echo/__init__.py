"""The smallest application."""
