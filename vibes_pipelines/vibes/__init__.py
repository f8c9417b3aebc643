"""The Vibes Mobile Engagement Platform as its documentation describes it: clients and formats."""
