"""Database servers of benchmarks and tests, on this machine and gone with the process that starts them."""
