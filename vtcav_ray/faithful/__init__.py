"""Tests that an explanation can fail: necessity, sanity, stability, first order, and agreement across layers."""
