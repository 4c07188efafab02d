"""The broker's server: connections, requests and responses, the process."""
