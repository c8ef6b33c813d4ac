"""Answers spoiled at every byte, requests written in every odd way: `make hostile`. A sample is in `make test`."""
