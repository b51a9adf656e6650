"""What both programs need: listeners, logs, signals, private files."""
