"""One reader for each published file layout."""
