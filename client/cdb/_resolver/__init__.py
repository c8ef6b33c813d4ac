"""Find the answer to a query: lock file, then cache, then servers."""
