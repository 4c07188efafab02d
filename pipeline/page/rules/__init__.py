"""Rules in the page: rule files are checked as they are typed, tried over the history, compared and published."""
