"""Spans and metrics of requests by OpenTelemetry; needs ``pip install 'bridgepool[otel]'``."""
