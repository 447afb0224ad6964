"""A trained student on files: `Segmenter`, predict, export."""
