"""Providers over a network: the protocol, the gateway's end of it, and the control plane's."""
