"""HTTP/1.1 on Trio, both ways: a server of handlers, and a client for upstreams."""
