"""The positions of texts in a picture (SVG)."""

from __future__ import annotations

import xml.etree.ElementTree as ET

# The maximal average width of a sans-serif letter, as a fraction of the font size.
_LETTER = 0.56


def assert_words_are_within(picture: str) -> ET.Element:
    """Check that each text of *picture* is within its sides.

    :returns: the root element, for further checks.
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
