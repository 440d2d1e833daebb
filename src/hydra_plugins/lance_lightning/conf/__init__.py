"""The `data` group and its groups `source`, `splits` and `sampler`."""
