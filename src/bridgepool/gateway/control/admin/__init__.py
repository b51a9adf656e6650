"""The two ways to carry out operations: on a store, and by the API of a running control plane.

Whoever has one way needs nothing of the other: neither is imported here.
"""
