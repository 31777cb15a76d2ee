"""Clicks and boxes to masks."""
