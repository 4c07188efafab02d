"""Faust, Kafka, the command line: everything between the agents and the machine."""
