"""A first look: `python -m demo` starts a master, stores sample files of the shapes of real ones, and asks for them."""
