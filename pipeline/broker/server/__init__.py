"""The broker's server: connections, requests and answers, the process."""
