"""Every byte of an answer cut, flipped and stalled: `make hostile`. A sample of it is in `make test`."""
