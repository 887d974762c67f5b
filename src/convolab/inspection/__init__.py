"""One network and one image become one finding."""
