"""The server: the same over HTTP."""
