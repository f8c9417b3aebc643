"""The stages of a day as plain functions: land, reconcile, certify, deliver.

What the assets, the command line and long simulations call alike. Stages join the rooms together;
rules, formats and protocols belong to those rooms, and Dagster to `orchestration`.
"""
