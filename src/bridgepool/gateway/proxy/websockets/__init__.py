"""Websockets through the data plane: the handshake, the relay of frames, limits and records.

Frames pass unchanged in both directions. A guard reads the messages in them, so that rules, limits
and usage apply to each response as to a request over HTTP.
"""
