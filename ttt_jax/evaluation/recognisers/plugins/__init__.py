"""Recognisers that need large libraries; each is imported when it is asked for."""
