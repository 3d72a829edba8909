"""Where the words of a picture (SVG) stand."""

from __future__ import annotations

import xml.etree.ElementTree as ET

# What a letter of sans-serif takes at most, on average, as a part of its size.
_LETTER = 0.56


def assert_words_are_within(picture: str) -> ET.Element:
    """No word of *picture* begins or ends beyond its sides.

    :returns: its root, for whoever looks further.
    """
    root = ET.fromstring(picture)
    width = float(root.attrib["viewBox"].split()[2])
    for text in root.findall("{*}text"):
        length = len(text.text or "") * float(text.attrib["font-size"]) * _LETTER
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.attrib["text-anchor"]]
        left = float(text.attrib["x"]) - length * share
        assert left >= 0, text.text
        assert left + length <= width, text.text
    return root
