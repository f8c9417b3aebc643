"""Tribe CRM: everything its API and its webhooks say, and nothing of what is done about it."""
