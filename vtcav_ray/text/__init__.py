"""Text from and for the outside: URLs, CSV cells, file names, YAML and JSON within limits."""
