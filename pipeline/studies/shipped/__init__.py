"""The studies that come with Astrocyte, one a module."""
