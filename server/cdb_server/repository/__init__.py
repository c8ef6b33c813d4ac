"""Reads and writes the database in transactions: queries and commands."""
