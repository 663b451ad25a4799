"""Many photographs at once on one device: the single fit's arithmetic with a leading photograph axis."""
