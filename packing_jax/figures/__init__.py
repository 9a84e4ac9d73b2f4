"""Published figures, computed again: one a file, for `packing-jax reproduce`."""
