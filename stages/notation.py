"""Text without what is not prose: LaTeX, code, links, and characters that no reader sees."""

import re
import unicodedata

MAX_CHARACTERS = 2**18
"""Only the beginning of a longer text is read; it is as long as about 64k tokens of English."""
NORMALIZED_AT_ONCE = 1024
"""Characters. Normalization takes quadratic time over a run of combining marks."""

# A part of a formula: numbers, signs, names and commands. Two words in a row or a letter that is neither Latin nor
# Greek is prose: "$5 for milk and 3$" is no formula, nor can dollar signs hide sentences of another language.
PART = (
    r"[\d_]++|[^\w\\$\n]++|[A-Za-z\u0370-\u03ff]++(?!\s+[A-Za-z]{2})"
    r"|\\[A-Za-z]++(?:\{[^{}]*+\})*+|\\[^\w()\[\]]"
)
# No alternative reads past a second opening of its kind, or gives characters back: unclosed ones take linear time.
NOTATION = re.compile(
    r"```.*?(?:```|\Z)"
    r"|`[^`\n]*+`"
    rf"|\$\$(?:{PART}|\n)*+\$\$|\\\[(?:{PART}|\n)*+\\\]|\\\((?:{PART}|\n)*+\\\)"
    # A dollar sign before a space or a digit is an amount, as in "$2 or $3".
    rf"|\$(?=\S)(?:{PART})*+(?<=\S)\$(?!\d)"
    r"|\\begin\{(\w+\*?)\}[^\\]*+(?:\\(?!begin\{|end\{\1\})[^\\]*+)*+\\end\{\1\}"
    r"|\\[A-Za-z]++(?:\{[^{}]*+\})*+",
    re.DOTALL,
)
NOTATION_STARTS = ("`", "$", "\\")
LINK = re.compile(r"(?:https?://|www\.)[^\s\u3000-\u303f\u3040-\u9fff]++")
LINK_STARTS = ("://", "www.")
PUNCTUATION = {"。": ". ", "…": "...", **dict(zip("，、：；！？（）“”‘’", ",,:;!?()\"\"''", strict=True))}
INVISIBLE = "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
MARKS = "".join(mark for mark in map(chr, range(0x300, 0xE50)) if unicodedata.category(mark).startswith("M"))
THAI = "\u0e01-\u0e46"
UNSEEN = re.compile(f"[{INVISIBLE}{MARKS}]+")
THAI_LETTER = re.compile(f"[{THAI}]")
RARE = re.compile(f"[{INVISIBLE}{MARKS}{THAI}]")


def clean_text(text: str) -> str:
    """The first `MAX_CHARACTERS` in lower case, normalized (NFKC), without notation, marks and invisible characters.

    Combining marks go too, as `re` takes them for ends of words: vowel signs would cut words in Hindi.
    """
    text = text[:MAX_CHARACTERS]
    return remove_notation(text if text.isascii() else remove_unseen(normalize(text))).lower()


def normalize(text: str) -> str:
    """NFKC, piece by piece. Punctuation becomes ASCII first: most Chinese text is normal then, which costs no time."""
    for mark, plain in PUNCTUATION.items():
        text = text.replace(mark, plain)
    pieces = (text[start : start + NORMALIZED_AT_ONCE] for start in range(0, len(text), NORMALIZED_AT_ONCE))
    return "".join(unicodedata.normalize("NFKC", piece) for piece in pieces)


def remove_unseen(text: str) -> str:
    """Without marks and invisible characters; Thai letters, which each count as a word, stand apart."""
    return THAI_LETTER.sub(r"\g<0> ", UNSEEN.sub("", text)) if RARE.search(text) else text


def remove_notation(text: str) -> str:
    if any(map(text.__contains__, LINK_STARTS)):
        text = LINK.sub(" ", text)
    return NOTATION.sub(" ", text) if any(map(text.__contains__, NOTATION_STARTS)) else text
