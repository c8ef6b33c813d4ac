"""Understands payloads for display: pure functions, bounded in what they look at."""
