"""Rules over recorded logs, without a broker: matching, backtests, scores, explanations."""
