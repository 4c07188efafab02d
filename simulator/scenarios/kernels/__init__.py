"""The scenario ``kernels``."""
