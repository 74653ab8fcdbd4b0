"""The chapters of a page, each made from what there is, or left out."""
