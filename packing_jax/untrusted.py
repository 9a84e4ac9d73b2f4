"""Refuse stores from elsewhere that would take all memory."""

import os
import resource

from packing_jax.errors import PackingError

LARGEST_STORE = 2**40  # bytes; a slip in a range should not fill a disk


def check_memory(size: int) -> None:
    """Refuse to read more than half of this machine's memory, or of what this process may take of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(limit)
        memory = memory if soft == resource.RLIM_INFINITY else min(memory, soft)
    if size > memory // 2:
        raise PackingError(f"it would take {size / 2**30:.3g} GiB of memory, more than half of what this machine has")
