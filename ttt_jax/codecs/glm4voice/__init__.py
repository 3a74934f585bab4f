"""GLM-4-Voice's speech tokenizer (arXiv 2412.02612): 12.5 tokens a second, sound to ids alone.

`features` makes Whisper's log-mels, `shape` reads what a checkpoint says of itself, `encoder`
is the network, `weights` its files, and `tokenizer` the codec.
"""
