"""Delivery: carries a released diff set out, and proves afterwards what became of it."""
