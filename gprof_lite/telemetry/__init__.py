"""Metrics and events that leave the agent: OpenTelemetry, Prometheus, JSON lines."""
