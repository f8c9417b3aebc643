"""What a person reads about a day: the account, in words and as JSON."""
