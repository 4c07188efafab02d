"""The scenario ``cells``."""
