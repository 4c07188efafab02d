"""Matching on arrival: matches before the watermark has passed their events, confirmed or retracted later."""
