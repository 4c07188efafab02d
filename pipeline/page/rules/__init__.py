"""Rules in the page: their texts are checked as they are typed, tried over the history, compared and published."""
