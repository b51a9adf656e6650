"""Commands for those who work on bridgepool."""
