"""APSIS One: its API, its imports and the formats of its values; no rule of a sync belongs here."""
