"""Change a Trio proxy's upstreams while it runs."""
