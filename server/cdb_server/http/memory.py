"""How a worker's memory is taken from the system and given back: glibc's defaults are not made for this."""

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 2 * 2**20
MOST_FREE = 16 * 2**20


def keep_buffers() -> None:
    """Let the buffers of answers be used again; does nothing where there is no glibc.

    Those above 128 kB would be given back at once, and each next answer's would come as pages that the kernel has to
    fill with zeros first: a third of the time that an answer of 100 kB takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, MOST_FREE)
