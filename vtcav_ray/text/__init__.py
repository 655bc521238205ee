"""Text that comes from outside or goes there: URLs, CSV cells, file names, YAML and JSON within limits."""
