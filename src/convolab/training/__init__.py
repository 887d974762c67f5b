"""One recipe -> one run."""
