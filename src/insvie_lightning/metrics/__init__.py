"""Metrics: torchmetrics `Metric`s and the functions under them."""
