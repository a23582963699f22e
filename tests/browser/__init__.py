"""What real browsers do with the pages of the documentation."""
