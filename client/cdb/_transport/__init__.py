"""Send one HTTP request to one server, within a deadline."""
