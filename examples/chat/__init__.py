"""An answer streamed token by token to a browser."""
