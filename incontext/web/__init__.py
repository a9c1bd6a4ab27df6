"""Web: page and server, on public names only."""
