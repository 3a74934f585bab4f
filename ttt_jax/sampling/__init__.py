"""Decoding: text left to right, audio in parallel blocks."""
