"""The data plane: one request from the client's socket to its upstream and back."""
