"""Routes: SOAP, reading, plain GET (rest) and pages."""
