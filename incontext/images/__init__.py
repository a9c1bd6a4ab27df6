"""Images: read, orient, resize, normalize, tile."""
