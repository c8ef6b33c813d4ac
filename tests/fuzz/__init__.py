"""Generated requests against the service: valid ones made from the contract's schema, then mutated."""
