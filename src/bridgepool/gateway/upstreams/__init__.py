"""What a gateway remembers about its upstreams: keys, breakers, retries, requests in flight."""
