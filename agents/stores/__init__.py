"""Databases of experiments: contexts, loggers, repositories, migrations and retention."""
