import pytest

from ttt_jax.inspection import scripts


@pytest.mark.parametrize(
  'text,expected',
  [
    ('Grüße, ﬁn 123 ...', {'Latin': 7}),
    ('ＦＵＬＬ 𝐁', {'Latin': 5}),
    ('你好 hello', {'Han': 2, 'Latin': 5}),
    ('東京タワーのひと', {'Han': 2, 'Katakana': 2, 'Hiragana': 3}),
    ('안녕 Привет γειά', {'Hangul': 2, 'Cyrillic': 6, 'Greek': 4}),
    ('नमस्ते', {'Devanagari': 4}),  # vowel signs are marks, not letters
    ('שלום مرحبا', {'Hebrew': 4, 'Arabic': 5}),
    ('ᨠ\U000103a0', {'Tai Tham': 1, 'Old Persian': 1}),
    ('々ーˈ 12 €\n\x00\ud800\ue000\u0301', {}),
    ('', {}),
  ],
)
def test_letters_by_script(text, expected):
  assert scripts.letters(text) == expected
