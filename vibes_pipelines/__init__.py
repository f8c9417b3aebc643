"""Keeps a CRM and the Vibes Mobile Engagement Platform in agreement, and proves it."""
