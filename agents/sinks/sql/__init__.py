"""The SQL sink: frames and records as rows of SQLite and PostgreSQL."""
