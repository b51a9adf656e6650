"""Metrics of the two programs: declared once, counted while they run, written for Prometheus."""
