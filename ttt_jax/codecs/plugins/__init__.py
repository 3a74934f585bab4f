"""Codecs that need torch and transformers, which the package itself never imports.

Nothing imports these modules but `kinds.find`, when such a codec is asked for.
"""
