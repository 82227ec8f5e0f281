"""A Django Channels consumer that talks to a group."""
