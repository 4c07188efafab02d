"""Traces and metrics of workers for OpenTelemetry collectors, over OTLP; only `otlp` needs the extra of that name."""
