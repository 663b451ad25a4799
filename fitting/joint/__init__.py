"""Several photographs of one person as one problem."""
