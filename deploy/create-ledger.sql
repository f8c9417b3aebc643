CREATE DATABASE vibes_ledger;
