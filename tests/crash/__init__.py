"""The server killed at any moment, and the disk failing under it: an upload is there whole or not at all."""
