"""The first files of a set-up: a sync.yaml of guesses, .env, and what Dagster needs.

`look` asks the CRM and the platform, `guess` concludes, `write` makes the text, `files` puts it
down.
"""
