"""`bridgepool demo`: a gateway whose providers change while it streams."""
