"""Keeps a CRM and the Vibes Mobile Engagement Platform in agreement, and proves it."""

import os

# pydantic otherwise asks every installed package for plugins, at each start of a process.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
