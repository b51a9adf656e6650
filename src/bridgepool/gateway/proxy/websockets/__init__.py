"""Websockets through the data plane: the handshake, the relay of frames, limits and records.

Clients' frames go to the provider and back as they are; beside them a guard reads the messages, so
that rules, limits and usage hold for each response as they do for a request of HTTP.
"""
