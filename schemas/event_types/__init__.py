"""The event types of the shipped scenarios and of their controls, as entries of the catalog."""
