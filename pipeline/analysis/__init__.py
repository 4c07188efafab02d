"""Rules over recorded logs, with no broker: matching, backtests, scores, explanations."""
