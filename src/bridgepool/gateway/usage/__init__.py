"""What requests have used: read from the answers as they pass, kept as records."""
