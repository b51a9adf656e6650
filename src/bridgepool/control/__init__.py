"""The control plane: the store that owns the providers, its API, and its service for gateways."""
