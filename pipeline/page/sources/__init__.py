"""What a page is of: a broker, a recorded log, a database."""
