"""Controllers: from metrics and scores to messages on ``control.<name>`` topics."""
