"""What `bridgepool demo` shows: a gateway whose providers change while it streams."""
