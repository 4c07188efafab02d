"""The event types of the shipped scenarios, as entries of the catalog."""
