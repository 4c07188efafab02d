"""What runs where: the plan of topics, repartitioned streams, rule files and their updates."""
