"""Waveform <-> audio tokens."""
